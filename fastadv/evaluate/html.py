"""HTML for notebooks."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from fastadv.utils.text import printable


def html_table(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    labels: int = 1,
    caption: str = "",
    notes: Sequence[str] = (),
) -> str:
    """Render a table as HTML, with every text escaped.

    Args:
        header: names of the columns.
        rows: text of the cells.
        labels: how many columns, from the left, are text and not numbers.
        caption: above the table.
        notes: below it, a line each.
    """
    align = ["left" if column < labels else "right" for column in range(len(header))]

    def row_of(tag: str, cells: Sequence[str]) -> str:
        made = (f'<{tag} style="text-align: {a}">{_text(c)}</{tag}>' for a, c in zip(align, cells, strict=True))
        return f"<tr>{''.join(made)}</tr>"

    head = f"<caption>{_text(caption)}</caption>" * bool(caption)
    body = "".join(row_of("td", row) for row in rows)
    below = "".join(f"<br>{_text(note)}" for note in notes).removeprefix("<br>")
    table = f"<table>{head}<thead>{row_of('th', header)}</thead><tbody>{body}</tbody></table>"
    return table + f"<small>{below}</small>" * bool(below)


def _text(text: str) -> str:
    return escape(printable(text))
