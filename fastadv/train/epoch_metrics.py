"""Metrics of an epoch, averaged from the totals of its iterations: reading them waits for no device."""

from __future__ import annotations

from typing import Any, NamedTuple

from fastadv.train.step_metrics import StepTotals
from fastadv.train.tasks.correct_counts import accuracy_of


class EpochMeans(NamedTuple):
    """Mean loss of the minibatches, and accuracy on their examples; None if there were no such examples."""

    loss: float
    clean: float | None
    adversarial: float | None


class EpochMetrics:
    """Accumulates an epoch's iterations."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget all iterations."""
        self._sums = [0.0, 0.0, 0.0]  # loss, correct clean examples, correct adversarial examples
        self._counts = [0, 0, 0]  # minibatches, clean examples, adversarial examples

    def add(self, totals: StepTotals) -> None:
        """Add one iteration."""
        self._sums = [a + b for a, b in zip(self._sums, (totals.losses, *totals.correct), strict=True)]
        self._counts = [a + b for a, b in zip(self._counts, (totals.minibatches, *totals.examples), strict=True)]

    def means(self) -> EpochMeans:
        """Means over the iterations since the last reset, at least one."""
        loss, *correct = self._sums
        minibatches, *examples = self._counts
        return EpochMeans(loss / minibatches, *accuracy_of(correct, examples))

    def state_dict(self) -> dict[str, Any]:
        """State for a checkpoint in the middle of an epoch."""
        return {"sums": self._sums, "counts": self._counts}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a :meth:`state_dict`."""
        self._sums, self._counts = list(state["sums"]), list(state["counts"])
