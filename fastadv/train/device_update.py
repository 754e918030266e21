"""The update at the end of an iteration, in a form that a CUDA graph can record."""

from __future__ import annotations

from collections.abc import Callable

from fastadv.train.device_averages import DeviceAverages
from fastadv.train.device_rates import DeviceRates
from fastadv.train.step_metrics import StepMetrics
from fastadv.train.update_guard import UpdateGuard


class DeviceUpdate:
    """Call it with an iteration's metrics to update the weights and their averages, with numbers on the device.

    Args:
        step: clips the gradient and steps the optimiser.
        guard: undoes the update if a loss was not finite.
        rates: learning rates of the optimiser.
        averages: averages of the weights; None for no averaging.
    """

    def __init__(
        self, step: Callable[[], None], guard: UpdateGuard, rates: DeviceRates, averages: DeviceAverages | None
    ) -> None:
        self._step = step
        self._guard = guard
        self._rates = rates
        self._averages = averages

    def __call__(self, metrics: StepMetrics) -> None:
        with self._rates.in_place(), self._guard.over(metrics.not_finite()):
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
