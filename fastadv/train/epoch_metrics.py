"""An epoch's means, of what each iteration has told the host already: reading them waits for nothing."""

from __future__ import annotations

from typing import Any, NamedTuple

from fastadv.train.step_metrics import Totals, shares


class Means(NamedTuple):
    """Of minibatches: the mean loss, and shares of their examples; None where there was no such example."""

    loss: float
    clean: float | None
    adversarial: float | None


class RunningMeans:
    """Means since the last restart."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Begin anew."""
        self._sums = [0.0, 0.0, 0.0]  # loss, clean, adversarial
        self._counts = [0, 0, 0]

    def add(self, totals: Totals) -> None:
        """One iteration."""
        self._sums = [a + b for a, b in zip(self._sums, (totals.losses, *totals.correct), strict=True)]
        self._counts = [a + b for a, b in zip(self._counts, (totals.minibatches, *totals.examples), strict=True)]

    def read(self) -> Means:
        """The means of one minibatch or more."""
        loss, *hits = self._sums
        minibatches, *examples = self._counts
        return Means(loss / minibatches, *shares(hits, examples))

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint in the middle of an epoch needs."""
        return {"sums": self._sums, "counts": self._counts}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from :meth:`state_dict`."""
        self._sums, self._counts = list(state["sums"]), list(state["counts"])
