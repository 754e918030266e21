"""torch.compile, where it can; the network as it is, where it cannot."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import nn
from torch._functorch import config

from fastadv.utils.compile_errors import compile_error_reason, is_compile_error


class CompiledOrEager(nn.Module):
    """``model`` by torch.compile, which compiles at the first call; if that fails, ``model`` itself from then on.

    Both passes are compiled then. Left to itself, torch.compile makes the backward pass when that first runs, and a
    failure there would end the run: it would be too late to go without.

    Args:
        model: wrapped by DistributedDataParallel or not.

    Warns:
        UserWarning: compilation failed, and why, in a line.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self._orig_mod = model  # the name by which raw_module() finds what torch.compile wraps
        self._call: Any = torch.compile(model)

    def forward(self, *inputs: Any) -> Any:
        try:
            with config.patch(force_non_lazy_backward_lowering=True):
                return self._call(*inputs)
        except Exception as error:
            if not is_compile_error(error):
                raise
            reason = compile_error_reason(error)
            warnings.warn(f"compile: torch.compile failed and training goes on without it: {reason}", stacklevel=2)
            self._call = self._orig_mod
            return self._call(*inputs)
