"""Where the records of a training run go: log.jsonl, TensorBoard and a progress bar."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from fastadv.train.json_log import JsonLog
from fastadv.train.run_records import Record, SentinelRecord, StepRecord
from fastadv.utils.optional_deps import require


class Monitor(Protocol):
    """Receives records."""

    def write(self, record: Record) -> None:
        """Write one record."""

    def close(self) -> None:
        """Close it; no records follow."""


class TensorBoard:
    """Scalars in TensorBoard's format.

    Args:
        folder: where its event files go.
        step: the run's current iteration; scalars that were written for later ones are hidden.

    Raises:
        OSError: if the folder cannot be written to, or its name is not UTF-8.
    """

    def __init__(self, folder: Path, *, step: int) -> None:
        require("tensorboard", extra="train")
        from torch.utils.tensorboard import SummaryWriter

        try:
            self._writer: Any = SummaryWriter(str(folder), purge_step=step + 1)
        except UnicodeEncodeError as error:
            raise OSError(f"TensorBoard writes to no folder whose name is not UTF-8, as in {folder}") from error

    def write(self, record: Record) -> None:
        """Add the record's numbers, under train/ or test/."""
        values = asdict(record)
        step, _ = values.pop("step"), values.pop("epoch")
        for name, value in values.items():
            if value is not None:
                tag = f"test/{name.removeprefix('test_')}" if name.startswith("test_") else f"train/{name}"
                self._writer.add_scalar(tag, value, step)

    def close(self) -> None:
        """Write what is still in memory."""
        self._writer.close()


class Progress:
    """A progress bar on a terminal; elsewhere, one line per epoch.

    Args:
        step: the run's current iteration.
        total_steps: iterations of the whole run.
        epochs: epochs of the whole run.
        console: a rich Console; None for standard error.
    """

    def __init__(self, *, step: int, total_steps: int, epochs: int, console: Any = None) -> None:
        rich = require("rich.progress", extra="train")
        self._console = console or require("rich.console", extra="train").Console(stderr=True)
        self._epochs = epochs
        self._speed = self._wait = ""
        self._bar = rich.Progress(
            rich.BarColumn(),
            rich.MofNCompleteColumn(),
            rich.TextColumn("{task.description}"),
            rich.TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task("", total=total_steps, completed=step)
        self._bar.start()

    def write(self, record: Record) -> None:
        """Move the bar, or print the epoch's line."""
        if isinstance(record, StepRecord):
            self._speed = f"{record.images_per_s:,.0f} images/s  "
            self._wait = f"data wait {record.data_wait:.0%}  "
            figures = _figures(record.loss, record.clean_accuracy, record.adversarial_accuracy)
            self._bar.update(self._task, completed=record.step, description=self._speed + figures)
            return
        if isinstance(record, SentinelRecord):
            return
        means = _figures(record.mean_loss, record.mean_clean_accuracy, record.mean_adversarial_accuracy)
        pace = self._speed + self._wait
        line = f"epoch {record.epoch}/{self._epochs}  {pace}mean {means}  test {record.test_accuracy:.1%}"
        if record.test_accuracy_averaged is not None:
            line += f"  averaged {record.test_accuracy_averaged:.1%}"
        if record.last_robust_accuracy is not None:
            line += f"  robust {record.last_robust_accuracy:.1%}"
        self._bar.console.print(line, highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Stop updating the bar."""
        self._bar.stop()


def _figures(loss: float, clean: float | None, adversarial: float | None) -> str:
    shares = {"clean": clean, "adversarial": adversarial}
    accuracies = "".join(f"  {name} {share:.1%}" for name, share in shares.items() if share is not None)
    return f"loss {loss:.3f}{accuracies}"


@contextmanager
def monitoring(run_dir: Path, *, step: int, total_steps: int, epochs: int) -> Iterator[list[Monitor]]:
    """Open the log, TensorBoard and progress bar of a run's folder at iteration ``step``."""
    run_dir.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        opened: list[Monitor] = []
        for monitor in (
            JsonLog(run_dir / "log.jsonl", step=step),
            TensorBoard(run_dir / "tensorboard", step=step),
            Progress(step=step, total_steps=total_steps, epochs=epochs),
        ):
            stack.callback(monitor.close)
            opened.append(monitor)
        yield opened
