"""The update at the end of an iteration, in a form that a CUDA graph can record."""

from __future__ import annotations

from collections.abc import Callable

from fastadv.train.device_averages import DeviceAverages
from fastadv.train.device_rates import DeviceRates


class DeviceUpdate:
    """Call it to update the weights and their averages, with numbers that are read on the device.

    Args:
        step: clips the gradient and steps the optimiser.
        rates: learning rates of the optimiser.
        averages: averages of the weights; None for no averaging.
    """

    def __init__(self, step: Callable[[], None], rates: DeviceRates, averages: DeviceAverages | None) -> None:
        self._step = step
        self._rates = rates
        self._averages = averages

    def __call__(self) -> None:
        with self._rates.in_place():
            self._step()
        if self._averages is not None:
            self._averages.apply()

    def load(self, iteration: int) -> None:
        """Copy the numbers of an iteration to the device if they have changed; needed before each update."""
        self._rates.load()
        if self._averages is not None:
            self._averages.load(iteration)

    def prepare(self, iteration: int) -> None:
        """The same, before an update that is not a replay."""
        self._rates.move_counts()
        self.load(iteration)
