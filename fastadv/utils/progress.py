"""How far work of known length has come: a bar on the terminal, and elsewhere a line now and then."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from typing import TYPE_CHECKING

from fastadv.utils.optional_deps import require
from fastadv.utils.text import duration

if TYPE_CHECKING:
    from rich.progress import Progress

SELDOM_S = 30.0  # between two lines, where there is no bar


def progress_bar(*, shown: bool = True, counts: bool = True) -> Progress:
    """A bar; disabled where standard error is no terminal, or another process shows it.

    Args:
        shown: whether this process is the one.
        counts: show how much of how much is done, rather than the share in percent.

    Raises:
        ModuleNotFoundError: rich is not installed.
    """
    rich = require("rich.progress", extra="train")
    console = require("rich.console", extra="train").Console(stderr=True)
    done = rich.MofNCompleteColumn() if counts else rich.TaskProgressColumn()
    columns = (rich.TextColumn("{task.description}", markup=False), rich.BarColumn(), done)
    bar: Progress = rich.Progress(
        *columns, rich.TimeRemainingColumn(), console=console, disable=not (shown and console.is_terminal)
    )
    return bar


class Work:
    """Work that is shown while it is done; see :func:`show_progress`.

    Args:
        bar: that shows it; if disabled, lines do.
        total: how much there is, in units that take about as long each.
        shown: whether this process shows it at all.

    Attributes:
        by_lines: whether this process prints lines, for there is no bar.
    """

    def __init__(self, bar: Progress, total: float, *, shown: bool) -> None:
        self.by_lines = shown and bar.disable
        self._bar = bar
        self._total = total
        self._task = bar.add_task("", total=total)
        self._what, self._done = "", 0.0
        self._begun = self._said = monotonic()

    def begin(self, what: str) -> None:
        """Another part of it."""
        self._what = what
        self._bar.update(self._task, description=what)

    def advance(self, amount: float) -> None:
        """So much of it is done."""
        self._done += amount
        self._bar.advance(self._task, amount)
        now = monotonic()
        if self.by_lines and now - self._said >= SELDOM_S and self._done < self._total:
            self._said = now
            left = (now - self._begun) * (self._total - self._done) / self._done
            share = 100 * self._done / self._total
            print(f"{share:.0f} % done, {duration(left)} left: {self._what}", file=sys.stderr, flush=True)


@contextmanager
def show_progress(total: float, *, shown: bool = True) -> Iterator[Work]:
    """Within the block, show how far work of this size has come.

    Args:
        total: how much there is, in units that take about as long each.
        shown: False for another process than the one that shows it.

    Raises:
        ModuleNotFoundError: rich is not installed.
    """
    with progress_bar(shown=shown, counts=False) as bar:
        yield Work(bar, total, shown=shown)
