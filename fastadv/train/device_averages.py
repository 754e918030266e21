"""Average weights with a decay that is read on the device, because a CUDA graph would repeat a Python number."""

from __future__ import annotations

import torch
from torch import nn

from fastadv.train.protocols import Averages
from fastadv.utils.recorded_number import RecordedNumber


class DeviceAverages:
    """Updates averages like their own ``update``, up to rounding.

    Args:
        averages: averages of the model's weights.
        model: the model.
        device: device of both.
    """

    def __init__(self, averages: Averages, model: nn.Module, device: torch.device) -> None:
        self._averages = averages
        self._model = model
        self._share = RecordedNumber(torch.zeros((), device=device))

    def load(self, iteration: int) -> None:
        """Copy the iteration's share of the averages, 1 - decay, to the device."""
        self._share.set(1.0 - self._averages.get_decay(iteration))

    @torch.no_grad()
    def apply(self) -> None:
        """Move the averages towards the weights by the loaded share; copy counters."""
        pairs = list(zip(self._averages.module.state_dict().values(), self._model.state_dict().values(), strict=True))
        averaged = [average for average, _ in pairs if average.is_floating_point()]
        weights = [weight for average, weight in pairs if average.is_floating_point()]
        differences = torch._foreach_sub(weights, averaged)
        torch._foreach_mul_(differences, self._share.place)
        torch._foreach_add_(averaged, differences)
        for average, weight in pairs:
            if not average.is_floating_point():
                average.copy_(weight)
