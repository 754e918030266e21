"""The update that an iteration ends with, in a form that can be recorded."""

from __future__ import annotations

from collections.abc import Callable

from fastadv.train.device_averages import DeviceAverages
from fastadv.train.device_rates import DeviceRates


class DeviceUpdate:
    """Steps the weights and moves their averages, by numbers that lie on the device. Call it to do both.

    Args:
        step: clips the gradient and steps the optimiser.
        rates: of that optimiser.
        averages: of the weights; None for none.
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
        """Bring the numbers of an iteration to the device, as far as they have changed; needed before each update."""
        self._rates.load()
        if self._averages is not None:
            self._averages.load(iteration)

    def prepare(self, iteration: int) -> None:
        """The same before an update that is not replayed."""
        self._rates.move_counts()
        self.load(iteration)
