"""A bar on the terminal for work of known length."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastadv.extras import require

if TYPE_CHECKING:
    from rich.progress import Progress


def progress_bar(*, shown: bool = True) -> Progress:
    """A bar; disabled where standard error is no terminal, or another process shows it.

    Raises:
        ModuleNotFoundError: rich is not installed.
    """
    rich = require("rich.progress", extra="train")
    console = require("rich.console", extra="train").Console(stderr=True)
    columns = (rich.TextColumn("{task.description}", markup=False), rich.BarColumn(), rich.MofNCompleteColumn())
    bar: Progress = rich.Progress(
        *columns, rich.TimeRemainingColumn(), console=console, disable=not (shown and console.is_terminal)
    )
    return bar
