"""Print tables on a terminal; one that is too wide is printed in parts, so that no column is cut off."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from fastadv.evaluate.tables import Table, to_rich
from fastadv.utils.optional_deps import require

if TYPE_CHECKING:
    import rich.console


def print_table(table: Table, console: rich.console.Console | None = None) -> None:
    """Print a table in as many parts as the terminal's width requires; each repeats the columns of labels.

    Args:
        table: its caption is printed above the first part, its notes below the last one.
        console: where to print; None is standard output.
    """
    console = console or require("rich.console", extra="evaluate").Console()
    parts = list(_parts(table, console))
    for number, part in enumerate(parts):
        first, last = number == 0, number == len(parts) - 1
        caption = table.caption if first else f"{table.caption} (continued)"
        console.print(to_rich(replace(part, caption=caption, notes=table.notes if last else ())))


def _parts(table: Table, console: rich.console.Console) -> Iterator[Table]:
    """Split the table: each part has as many columns of numbers as fit, but at least one."""
    left = list(range(table.labels, len(table.header)))
    while left:
        count = len(left)
        while count > 1 and not _fits(_with_columns(table, left[:count]), console):
            count -= 1
        yield _with_columns(table, left[:count])
        left = left[count:]


def _with_columns(table: Table, columns: list[int]) -> Table:
    """Return the table with some of its columns of numbers."""
    chosen = [*range(table.labels), *columns]
    return replace(
        table,
        header=tuple(table.header[column] for column in chosen),
        rows=tuple(tuple(row[column] for column in chosen) for row in table.rows),
        bold=frozenset((row, chosen.index(column)) for row, column in table.bold if column in chosen),
    )


def _fits(table: Table, console: rich.console.Console) -> bool:
    measurement = require("rich.measure", extra="evaluate").Measurement
    unlimited = console.options.update(max_width=10_000)
    needed: int = measurement.get(console, unlimited, to_rich(replace(table, caption=""))).minimum
    return needed <= console.width
