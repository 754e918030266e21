"""RunLog: a run's records, one for each logged iteration and one for each epoch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack

from torch import Tensor

from fastadv.train.collapse import Check
from fastadv.train.epoch_metrics import EpochMetrics
from fastadv.train.monitor import Monitor, monitoring
from fastadv.train.pace import Pace
from fastadv.train.run import Run
from fastadv.train.run_records import EpochRecord, Record, SentinelRecord, StepRecord
from fastadv.train.step_metrics import StepTotals


class RunLog:
    """Collects metrics and timing, and writes records to the monitors, which are open on the main process.

    Args:
        run: the run, on this process.

    Attributes:
        metrics: metrics of the current epoch; part of a checkpoint.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._pace = Pace()
        self._opened = ExitStack()
        self._monitors: list[Monitor] = []
        self.metrics = EpochMetrics()

    def open(self, stack: ExitStack, step: int) -> None:
        """Open log, TensorBoard and progress bar at iteration ``step``; ``stack`` closes them."""
        stack.enter_context(self._opened)
        self._open(step)

    def go_back(self, step: int) -> None:
        """Remove the records of iterations after ``step``, from which the run continues."""
        if self._monitors:
            self._opened.close()
            self._open(step)

    def _open(self, step: int) -> None:
        total_steps, epochs = self._run.total_steps, self._run.config.epochs
        self._monitors = self._opened.enter_context(
            monitoring(self._run.run_dir, step=step, total_steps=total_steps, epochs=epochs)
        )

    def timed(self, minibatches: Iterable[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the minibatches; the time until each arrives counts as waiting for data."""
        return self._pace.timed(minibatches)

    def restart_clock(self) -> None:
        """Exclude the time until now, such as that of writing a checkpoint."""
        self._pace.restart()

    def count(self, totals: StepTotals, images: int) -> None:
        """Add an iteration in which this process trained on ``images`` images."""
        self._pace.count(images * self._run.processes.world_size)
        self.metrics.add(totals)

    def write_step(self, step: int, totals: StepTotals, lr: float) -> None:
        """Write the record of iteration ``step``, and restart the clock."""
        clean, adversarial = totals.accuracy
        images_per_s, data_wait = self._pace.read()
        record = StepRecord(
            step=step,
            epoch=1 + self._run.timeline.position_of_last(step).epoch,
            loss=totals.loss,
            clean_accuracy=clean,
            adversarial_accuracy=adversarial,
            lr=lr,
            images_per_s=images_per_s,
            data_wait=data_wait,
            cost=self._run.cost,
        )
        self._write(record)
        self._pace.restart()

    def write_check(self, step: int, check: Check) -> None:
        """Write the record of a check of the sentinel after iteration ``step``."""
        record = SentinelRecord(
            step=step,
            epoch=1 + self._run.timeline.position_of_last(step).epoch,
            sentinel_robust_accuracy=check.robust,
            sentinel_one_step_accuracy=check.one_step,
        )
        self._write(record)

    def write_epoch(self, step: int, test_accuracies: Sequence[float]) -> None:
        """Write the record of the epoch that iteration ``step`` ends, and reset the metrics.

        Args:
            step: iterations done.
            test_accuracies: that of the weights, then that of their averages if there are any.
        """
        means = self.metrics.means()
        record = EpochRecord(
            step=step,
            epoch=self._run.timeline.epochs_done(step),
            mean_loss=means.loss,
            mean_clean_accuracy=means.clean,
            mean_adversarial_accuracy=means.adversarial,
            test_accuracy=test_accuracies[0],
            cost=self._run.cost,
            test_accuracy_averaged=test_accuracies[1] if len(test_accuracies) > 1 else None,
            last_robust_accuracy=self._last_robust_accuracy(),
        )
        self._write(record)
        self.metrics.reset()

    def _last_robust_accuracy(self) -> float | None:
        sentinel = self._run.sentinel
        return None if sentinel is None or sentinel.last is None else sentinel.last.robust

    def _write(self, record: Record) -> None:
        for monitor in self._monitors:
            monitor.write(record)
