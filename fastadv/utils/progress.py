"""Shows the progress of work of known length: a bar on a terminal, otherwise a line now and then."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from typing import TYPE_CHECKING, Any

from fastadv.utils.optional_deps import require
from fastadv.utils.text import duration

if TYPE_CHECKING:
    from rich.progress import Progress

LINE_INTERVAL_S = 30.0  # between two lines, without a bar
_SHORT_BAR = 12  # characters, beside what has been found


def progress_bar(*, shown: bool = True, counts: bool = True, notebook: bool = False, found: bool = False) -> Progress:
    """Create a progress bar; it is disabled if standard error is not a terminal.

    Args:
        shown: false in processes that do not show the bar.
        counts: show "done/total" instead of a percentage.
        notebook: show it in a notebook, too.
        found: also show each task's field of this name, what the work has found so far.

    Raises:
        ModuleNotFoundError: if rich is not installed.
    """
    rich = require("rich.progress", extra="train")
    console = require("rich.console", extra="train").Console(stderr=True)
    done = rich.MofNCompleteColumn() if counts else rich.TaskProgressColumn()
    columns = [rich.TextColumn("{task.description}", markup=False), rich.BarColumn(), done]
    if found:
        columns[:2] = [_shortened(rich), rich.BarColumn(bar_width=_SHORT_BAR)]
        columns.append(rich.TextColumn("{task.fields[found]}", markup=False))
    bar: Progress = rich.Progress(
        *columns,
        rich.TimeRemainingColumn(),
        console=console,
        disable=not (shown and (console.is_terminal or (notebook and console.is_jupyter))),
    )
    return bar


def _shortened(rich: Any) -> Any:
    """A column of descriptions that are cut where the line is too long, so that no other column is."""
    column = require("rich.table", extra="train").Column

    class Shortened(rich.TextColumn):  # type: ignore[misc]
        def render(self, task: Any) -> Any:
            text = super().render(task)
            text.no_wrap, text.overflow = True, "ellipsis"
            return text

    return Shortened("{task.description}", markup=False, table_column=column(no_wrap=False))


class Work:
    """Work whose progress is shown; see :func:`show_progress`.

    Args:
        bar: shows the progress; lines are printed instead if it is disabled.
        total: amount of work, in units of about equal duration.
        shown: false in processes that show nothing.

    Attributes:
        by_lines: true if this process prints lines, because there is no bar.
    """

    def __init__(self, bar: Progress, total: float, *, shown: bool) -> None:
        self.by_lines = shown and bar.disable
        self._bar = bar
        self._total = total
        self._task = bar.add_task("", total=total, found="")
        self._what, self._found, self._done = "", "", 0.0
        self._begun = self._printed = monotonic()

    def begin(self, what: str) -> None:
        """Start another part of the work."""
        self._what, self._found = what, ""
        self._bar.update(self._task, description=what, found="")

    def expect(self, left: float) -> None:
        """Set the amount of work that is left, if it has turned out to be another than expected."""
        self._total = self._done + left
        for task in self._bar.tasks:
            task.total = self._total  # Progress.update would forget the speed so far

    def find(self, found: str) -> None:
        """Show what this part of the work has found so far."""
        self._found = found
        self._bar.update(self._task, found=found)

    def advance(self, amount: float) -> None:
        """Add an amount of finished work."""
        self._done += amount
        self._bar.advance(self._task, amount)
        now = monotonic()
        if self.by_lines and now - self._printed >= LINE_INTERVAL_S and self._done < self._total:
            self._printed = now
            left = (now - self._begun) * (self._total - self._done) / self._done
            share = 100 * self._done / self._total
            what = f"{self._what}; {self._found}" if self._found else self._what
            print(f"{share:.0f} % done, {duration(left)} left: {what}", file=sys.stderr, flush=True)


@contextmanager
def show_progress(total: float, *, shown: bool = True) -> Iterator[Work]:
    """Within the block, show the progress of work.

    Args:
        total: amount of work, in units of about equal duration.
        shown: false in processes that show nothing.

    Raises:
        ModuleNotFoundError: if rich is not installed.
    """
    with progress_bar(shown=shown, counts=False, found=True) as bar:
        yield Work(bar, total, shown=shown)
