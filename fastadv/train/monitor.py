"""Records of a training run, and where they go: log.jsonl, TensorBoard and a progress bar."""

from __future__ import annotations

import json
import os
import time
import warnings
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from fastadv.utils.optional_deps import require
from fastadv.utils.plain_json import parse_json
from fastadv.utils.regular_files import read_regular
from fastadv.utils.text import counted

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class StepRecord:
    """A logged iteration: learning rate, and loss and accuracies (None without such examples) of all its minibatches.

    ``images_per_s`` and ``data_wait``, the share of the time spent waiting for the loader (see :class:`Pace`), are
    since the previous record, or since a checkpoint after it. ``cost`` is that of all iterations so far, in clean-epoch
    equivalents (see ``fastadv.train.cost``). With several processes, ``data_wait`` and ``cost`` are those of the main
    one; everything else is over all.
    """

    step: int
    epoch: int
    loss: float
    clean_accuracy: float | None
    adversarial_accuracy: float | None
    lr: float
    images_per_s: float
    data_wait: float
    cost: float


@dataclass(frozen=True, kw_only=True)
class EpochRecord:
    """The end of an epoch: means over its minibatches during training, and accuracy on the clean test set.

    ``test_accuracy_averaged`` is that of the averaged weights; None without averages. ``cost`` is that of the run so
    far, as in a :class:`StepRecord`.
    """

    step: int
    epoch: int
    mean_loss: float
    mean_clean_accuracy: float | None
    mean_adversarial_accuracy: float | None
    test_accuracy: float
    cost: float
    test_accuracy_averaged: float | None = None


Record = StepRecord | EpochRecord


class Monitor(Protocol):
    """Receives records."""

    def write(self, record: Record) -> None:
        """Write one record."""

    def close(self) -> None:
        """Close it; no records follow."""


class JsonLog:
    """One JSON object per record, a line each, appended to ``path``.

    Args:
        path: the file.
        step: the run's current iteration. Lines of later iterations, which the run wrote after its last checkpoint, are
            removed so that none is there twice.

    Raises:
        OSError: if it is a device or a pipe, or cannot be written to.

    Warns:
        UserWarning: if lines are not records of a run. They are removed, and a copy of the file is kept.
    """

    def __init__(self, path: Path, *, step: int) -> None:
        if path.exists():
            _keep_until(path, step)
        self._file = path.open("a", encoding="utf-8")

    def write(self, record: Record) -> None:
        """Append the record and flush it to the operating system."""
        self._file.write(json.dumps(asdict(record)) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _keep_until(path: Path, step: int) -> None:
    content = read_regular(path)
    lines = content.splitlines(keepends=True)
    steps = [_step_of(line) for line in lines]
    whole = len(lines) if content.endswith(b"\n") else len(lines) - 1  # the last may have been cut short
    if strange := steps[: max(0, whole)].count(None):
        damaged = path.with_name(path.name + ".damaged")
        damaged.write_bytes(content)
        warnings.warn(
            f"{counted(strange, 'line')} of {path} are not records of a run and were removed; {damaged} is a copy of "
            f"the file",
            stacklevel=2,
        )
    shorter = path.with_name(path.name + ".partial")
    shorter.write_bytes(b"".join(line for line, of in zip(lines, steps, strict=True) if of is not None and of <= step))
    os.replace(shorter, path)


def _step_of(line: bytes) -> int | None:
    """The step in a line of the log; None if it is not a record."""
    try:
        step = parse_json(line)["step"]
    except (ValueError, TypeError, LookupError):
        return None
    return step if type(step) is int else None


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
        means = _figures(record.mean_loss, record.mean_clean_accuracy, record.mean_adversarial_accuracy)
        pace = self._speed + self._wait
        line = f"epoch {record.epoch}/{self._epochs}  {pace}mean {means}  test {record.test_accuracy:.1%}"
        if record.test_accuracy_averaged is not None:
            line += f"  averaged {record.test_accuracy_averaged:.1%}"
        self._bar.console.print(line, highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Stop updating the bar."""
        self._bar.stop()


def _figures(loss: float, clean: float | None, adversarial: float | None) -> str:
    shares = {"clean": clean, "adversarial": adversarial}
    accuracies = "".join(f"  {name} {share:.1%}" for name, share in shares.items() if share is not None)
    return f"loss {loss:.3f}{accuracies}"


class Pace:
    """Measures images per second since the last restart, and the share of that time spent waiting for the loader.

    Waiting is the time until the loader yields a minibatch. It includes loading, unless other threads or processes do
    that, and starting those at the beginning of an epoch. The clock is the host's and waits for no device: a GPU may be
    busy meanwhile, so this is an upper bound on how long it was idle for lack of data.
    """

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Restart the clock and the count."""
        self._images = 0
        self._waited = 0.0
        self._since = time.perf_counter()

    def count(self, images: int) -> None:
        """Count images that were trained on."""
        self._images += images

    def timed(self, minibatches: Iterable[T]) -> Iterator[T]:
        """Yield the minibatches; the time until each arrives counts as waiting."""
        since = time.perf_counter()
        for minibatch in minibatches:
            self._waited += time.perf_counter() - since
            yield minibatch
            since = time.perf_counter()

    def read(self) -> tuple[float, float]:
        """Images per second, and the share of the time spent waiting."""
        seconds = time.perf_counter() - self._since
        return self._images / seconds, self._waited / seconds


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
