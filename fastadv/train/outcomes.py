"""When the host reads how iterations went: seldom, because on a GPU it waits, but in time to stop a run."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from fastadv.train.rewind import Rewind
from fastadv.train.step_metrics import SharedMetrics, StepTotals

_SECONDS = 1.0  # between two readings, about


class Outcome(NamedTuple):
    """How an iteration went, unread.

    Args:
        before: the run's state before it.
        shared: its totals.
        losses: for each minibatch of this process the loss, a scalar, and the data-set indices [m].
        images: number of images of this process.
        cost: of its passes, in clean-epoch equivalents.
    """

    before: Rewind
    shared: SharedMetrics
    losses: list[tuple[Tensor, Tensor]]
    images: int
    cost: float


class Outcomes:
    """Collects the outcomes of iterations until they are read, all with one wait.

    Reading is due in every ``log_every``-th iteration, which is logged, and after about a second's worth of iterations:
    a process that was asked to stop tells the others through these totals. All processes read after the same
    iterations, because the time is that of the main process. The host may be ahead of a GPU, and measures too little
    time at first; so the number of iterations between readings starts at 1 and at most doubles.

    Args:
        at_once: read in every iteration, for a device that the host need not wait for.
        log_every: iterations between two that are logged.
    """

    def __init__(self, *, at_once: bool, log_every: int) -> None:
        self._log_every = 1 if at_once else log_every
        self._unread: list[Outcome] = []
        self._most = 1

    def add(self, outcome: Outcome) -> None:
        """Add the outcome of the iteration under way."""
        self._unread.append(outcome)

    def due(self, iteration: int) -> bool:
        """Whether to read before the update of ``iteration``, which counts from 1."""
        return iteration % self._log_every == 0 or len(self._unread) >= self._most

    def read(self) -> list[tuple[Outcome, StepTotals]]:
        """Wait for all unread outcomes; returns them in order, with their totals."""
        if not self._unread:
            return []
        unread, self._unread = self._unread, []
        unread[-1].shared.wait()
        read = [(outcome, outcome.shared.totals()) for outcome in unread]
        seconds = max(sum(totals.seconds for _, totals in read), 1e-9)
        self._most = max(1, min(2 * self._most, int(len(read) * _SECONDS / seconds)))
        return read

    def forget(self) -> None:
        """Forget unread outcomes, and read that of the next iteration: the run continues from another state."""
        self._unread = []
        self._most = 1
