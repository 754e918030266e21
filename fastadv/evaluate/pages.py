"""HTML pages that need no other file: tables and figures, with their style."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from fastadv.evaluate.figures import SVG_STYLE
from fastadv.evaluate.tables import Table, display_rows
from fastadv.utils.optional_deps import require

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff; max-width: 70rem; margin: 0 auto;
  padding: 1rem; }
h1 { font-size: 1.6rem; line-height: 1.25; } h2 { font-size: 1.3rem; border-top: 1px solid #ccc; padding-top: 1.5rem;
  margin-top: 2.5rem; }
nav a { margin-right: .8rem; white-space: nowrap; }
a { color: #0b4f8a; }
.scroll { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-size: .86rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; font-weight: 600; padding-bottom: .4rem; }
th, td { padding: .2rem .6rem; text-align: right; white-space: nowrap; vertical-align: top; }
th { border-bottom: 2px solid #444; } td { border-bottom: 1px solid #e4e4e4; }
th.text, td.text { text-align: left; } td.wide { white-space: normal; min-width: 16rem; }
.stacked .interval { display: block; font-size: .85em; color: #444; } .stacked th { white-space: normal; }
.broad table { font-size: .62rem; } .broad th, .broad td { padding: .15rem .2rem; }
.broad .interval { white-space: normal; }
tr.paper td { color: #5c5c5c; font-style: italic; }
.note { color: #444; font-size: .86rem; margin: .3rem 0; }
figure { margin: 1.2rem 0; } figure svg { max-width: 100%; height: auto; }
pre { background: #f5f5f5; padding: .8rem; overflow-x: auto; font-size: .8rem; }
@media (max-width: 40rem) { body { padding: .6rem; font-size: 15px; } }
@page { size: A4 landscape; margin: 10mm; }
@media print {
  nav { display: none; } body { max-width: none; padding: 0; } .scroll { overflow: visible; }
  tr, figure, .claim { break-inside: avoid; }
}
"""

# Style sheets alone cannot open what is folded in every browser.
_OPEN_FOR_PRINT = """
addEventListener("beforeprint", () => document.querySelectorAll("details:not([open])").forEach(part => {
  part.open = true;
  addEventListener("afterprint", () => { part.open = false; }, { once: true });
}));
"""

# A page of 1,000 pixels has room for so many letters in a row of a table, counting three for the space between columns.
# A wider table has its intervals below the values, and one that is still too wide is set in smaller type.
_ROOM, _BETWEEN = 135, 3


def html_page(title: str, body: Sequence[str], *, style: str = "") -> str:
    """A page.

    Args:
        title: of the page.
        body: its parts, as HTML.
        style: more CSS.
    """
    head = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}{style}</style>"
    )
    parts = [*body, f"<script>{_OPEN_FOR_PRINT}</script>"]
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>\n' + "\n".join(parts) + "\n</body></html>\n"


def table_html(table: Table) -> str:
    """A table with its caption and notes; rows with the paper's numbers get a style of their own."""
    texts = {index for index in range(table.labels)}
    shown = display_rows(table)
    stacked = _letters([table.header, *shown]) > _ROOM
    rows = []
    for number, row in enumerate(shown):
        kind = ' class="paper"' if "paper" in row[: table.labels] else ""
        cells = [_with_interval(cell) if stacked else escape(cell) for cell in row]
        cells = [f"<b>{cell}</b>" if (number, i) in table.bold else cell for i, cell in enumerate(cells)]
        rows.append(f"<tr{kind}>{_cells('td', cells, texts)}</tr>")
    head = _cells("th", [escape(name) for name in table.header], texts)
    broad = stacked and _letters([[max(_INTERVAL.split(cell), key=len) for cell in row] for row in shown]) > _ROOM
    box = "scroll" + " stacked" * stacked + " broad" * broad
    notes = "".join(f'<p class="note">{escape(note)}</p>' for note in table.notes)
    return (
        f'<div class="{box}"><table><caption>{escape(table.caption)}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>{notes}"
    )


_INTERVAL = re.compile(r" (?=\[[^\]]*\]$)")  # the space before it


def _with_interval(cell: str) -> str:
    """A cell whose interval, if it ends with one, can be set below the value."""
    value, *interval = _INTERVAL.split(cell)
    return escape(value) + "".join(f' <span class="interval">{escape(part)}</span>' for part in interval)


def _letters(rows: Sequence[Sequence[str]]) -> int:
    """The width of a table in letters, with the space between its columns."""
    return sum(max(map(len, column)) + _BETWEEN for column in zip(*rows, strict=True))


def _cells(tag: str, cells: Sequence[str], texts: set[int]) -> str:
    def kind(index: int, cell: str) -> str:
        names = (["text"] if index in texts else []) + (["wide"] if len(re.sub(r"<.*?>", "", cell)) > 50 else [])
        return f' class="{" ".join(names)}"' if names else ""

    return "".join(f"<{tag}{kind(index, cell)}>{cell}</{tag}>" for index, cell in enumerate(cells))


def inline_svg(figure: Figure, name: str) -> str:
    """A figure as an SVG element; its ids start with ``name``, so that several figures can share a page."""
    matplotlib = require("matplotlib", extra="evaluate")
    file = io.StringIO()
    with matplotlib.rc_context(SVG_STYLE):
        figure.savefig(file, format="svg", metadata={"Date": None})
    text = file.getvalue()
    text = re.sub(r'\b(id="|href="#|url\(#)', lambda match: f"{match[1]}{name}-", text[text.index("<svg") :])
    # Styles in an SVG would apply to the whole page.
    text = re.sub(r"<style.*?</style>", "", text, flags=re.DOTALL)
    return text.replace("<svg ", f'<svg role="img" aria-label="{escape(name)}" ', 1)
