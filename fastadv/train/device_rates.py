"""Learning rates that an optimiser reads on the device: a recorded step would repeat a number as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, optim

from fastadv.utils.recorded_number import RecordedNumber

# What has each optimiser of fastadv.train.optim take its learning rate from a tensor without waiting for the device.
_FORMS: dict[str, dict[str, Any]] = {
    "RMSprop": {"capturable": True, "foreach": True},
    "RMSpropTF": {"foreach": True},
    "SGD": {"fused": True, "foreach": False},
    "AdamW": {"capturable": True, "foreach": True, "fused": False},
}


class DeviceRates:
    """The learning rates of an optimiser's groups, on the device while it steps.

    Between steps a group holds numbers and its own options, as without this: schedules, logs and checkpoints are the
    same. Steps in a block of :meth:`in_place` differ from those outside in roundings alone.

    Args:
        optimizer: one of ``fastadv.train.optim``.
        device: of its parameters.

    Raises:
        ValueError: another optimiser.
    """

    def __init__(self, optimizer: optim.Optimizer, device: torch.device) -> None:
        name = type(optimizer).__name__
        if name not in _FORMS:
            raise ValueError(f"capture goes with the optimisers {', '.join(_FORMS)}, got {name}")
        self._optimizer = optimizer
        self._form = _FORMS[name]
        places = torch.zeros(len(optimizer.param_groups), device=device)  # [groups]
        self._rates = [RecordedNumber(place) for place in places]

    def load(self) -> None:
        """Bring the rates to the device, if the schedule has changed them."""
        for group, rate in zip(self._optimizer.param_groups, self._rates, strict=True):
            rate.set(group["lr"])

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Within the block the optimiser steps by what was loaded last; before the first, :meth:`move_counts`."""
        groups = self._optimizer.param_groups
        before = [{name: group[name] for name in ("lr", *self._form)} for group in groups]
        try:
            for group, rate in zip(groups, self._rates, strict=True):
                group.update(self._form, lr=rate.place)
            yield
        finally:
            for group, kept in zip(groups, before, strict=True):
                group.update(kept)

    def move_counts(self) -> None:
        """Bring the counts of steps to the device: on the host, where PyTorch may keep them, no replay would count."""
        for weight, state in self._optimizer.state.items():
            count = state.get("step")
            if isinstance(count, Tensor) and count.device != weight.device:
                state["step"] = count.to(weight.device)
