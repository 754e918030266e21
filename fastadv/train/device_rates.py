"""Learning rates that an optimiser reads on the device, because a CUDA graph would repeat a Python number."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, optim

from fastadv.utils.recorded_number import RecordedNumber

# Options with which the optimisers of fastadv.train.optim read the learning rate from a tensor without a wait.
_CAPTURABLE_OPTIONS: dict[str, dict[str, Any]] = {
    "RMSprop": {"capturable": True, "foreach": True},
    "RMSpropTF": {"foreach": True},
    "SGD": {"fused": True, "foreach": False},
    "AdamW": {"capturable": True, "foreach": True, "fused": False},
}


class DeviceRates:
    """Keeps the learning rates of an optimiser's groups on the device while it steps.

    Between steps, the groups hold Python numbers and their own options, so schedules, logs and checkpoints are
    unaffected. Steps within :meth:`in_place` differ from others by rounding alone.

    Args:
        optimizer: an optimiser of ``fastadv.train.optim``.
        device: device of its parameters.

    Raises:
        ValueError: if it is another optimiser.
    """

    def __init__(self, optimizer: optim.Optimizer, device: torch.device) -> None:
        name = type(optimizer).__name__
        if name not in _CAPTURABLE_OPTIONS:
            raise ValueError(f"capture goes with the optimisers {', '.join(_CAPTURABLE_OPTIONS)}, got {name}")
        self._optimizer = optimizer
        self._options = _CAPTURABLE_OPTIONS[name]
        places = torch.zeros(len(optimizer.param_groups), device=device)  # [groups]
        self._rates = [RecordedNumber(place) for place in places]

    def load(self) -> None:
        """Copy the rates to the device if the schedule has changed them."""
        for group, rate in zip(self._optimizer.param_groups, self._rates, strict=True):
            rate.set(group["lr"])

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """In the block, the optimiser uses the loaded rates; call :meth:`move_counts` before the first step."""
        groups = self._optimizer.param_groups
        before = [{name: group[name] for name in ("lr", *self._options)} for group in groups]
        try:
            for group, rate in zip(groups, self._rates, strict=True):
                group.update(self._options, lr=rate.place)
            yield
        finally:
            for group, kept in zip(groups, before, strict=True):
                group.update(kept)

    def move_counts(self) -> None:
        """Move step counts to the device: PyTorch may keep them on the host, where replays would not update them."""
        for weight, state in self._optimizer.state.items():
            count = state.get("step")
            if isinstance(count, Tensor) and count.device != weight.device:
                state["step"] = count.to(weight.device)
