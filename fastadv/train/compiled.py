"""torch.compile with a fallback to eager mode."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import nn
from torch._functorch import config

from fastadv.utils.compile_errors import compile_error_reason, is_compile_error


class CompiledOrEager(nn.Module):
    """Runs ``model`` by torch.compile, or eagerly if compilation fails in the first call.

    Compiles both passes in that call. By default torch.compile leaves the backward pass to its first run, where it
    would be too late to fall back.

    Args:
        model: wrapped by DistributedDataParallel or not.

    Warns:
        UserWarning: if compilation fails; says why in one line.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self._orig_mod = model  # raw_module() looks for a compiled module under this name
        self._call: Any = torch.compile(model)

    def forward(self, *inputs: Any) -> Any:
        try:
            with config.patch(force_non_lazy_backward_lowering=True):
                return self._call(*inputs)
        except Exception as error:
            if not is_compile_error(error):
                raise
            reason = compile_error_reason(error)
            warnings.warn(f"compile: torch.compile failed and training continues without it: {reason}", stacklevel=2)
            self._call = self._orig_mod
            return self._call(*inputs)
