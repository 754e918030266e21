"""Renders the report as one self-contained HTML page, with styles and figures inside."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from fastadv.evaluate.figures import SVG_STYLE
from fastadv.evaluate.tables import Table, display_rows
from fastadv.study.plan import Plot
from fastadv.study.report_content import Report, Section
from fastadv.study.verdicts import FAILS, HOLDS, MARKS, NOT_APPLICABLE, REASONS, RULE, UNCLEAR, Finding, summary
from fastadv.utils.optional_deps import require
from fastadv.utils.text import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure


# Verdicts differ by mark, word and weight, not by colour alone; the bars at the left differ in grey, too.
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
.broad table { font-size: .72rem; } .broad th, .broad td { padding: .2rem; } .broad th { white-space: normal; }
.broadest table { font-size: .62rem; }
tr.paper td { color: #5c5c5c; font-style: italic; }
.note { color: #444; font-size: .86rem; margin: .3rem 0; }
figure { margin: 1.2rem 0; } figure svg { max-width: 100%; height: auto; }
pre { background: #f5f5f5; padding: .8rem; overflow-x: auto; font-size: .8rem; }
.claim { border-left: .4rem solid #999; padding: .3rem .8rem; margin: .8rem 0; }
.claim p { margin: .2rem 0; } .claim summary { cursor: pointer; font-size: .86rem; }
.claim ul { margin: .2rem 0; font-size: .86rem; }
.holds { border-color: #1b6e3c; } .fails { border-color: #c05a00; border-left-style: double; }
.unclear { border-color: #8a8a8a; border-left-style: dotted; }
.absent { border-color: #b5b5b5; border-left-style: dashed; } .missing { border-color: #d5d5d5; }
.verdict { font-weight: 700; }
@media (max-width: 40rem) { body { padding: .6rem; font-size: 15px; } }
@media print { nav { display: none; } details > * { display: block; } }
"""

# Numbers of columns above which a table is set in smaller type to fit the page, like Tables 4 and 6 with a column for
# each target.
_BROAD, _BROADEST = 10, 15


def to_html(report: Report) -> str:
    """The report as HTML."""
    found = report.findings
    links = [(section.study.name, section.study.name) for section in report.sections]
    links = [("claims", "claims"), *links, ("networks", "networks"), ("machine", "machine and commands")]
    body = [
        f"<h1>{escape(report.title)}</h1>",
        "<nav>" + " ".join(f'<a href="#{name}">{escape(text)}</a>' for name, text in links) + "</nav>",
        f"<p><b>{escape(report.notice)}</b></p>" if report.notice else "",
        f"<p>{escape(report.scale.description)}</p>",
        f'<h2 id="claims">Claims</h2><p><b>{escape(summary(found))}</b></p><p class="note">{escape(RULE)}</p>',
        f'<p class="note">{escape(REASONS)}</p>' if report.notes else "",
        *(_claim(finding, report.notes.get(finding.claim.name, "")) for finding in found),
        *(_section(section) for section in report.sections),
        f'<h2 id="networks">Networks</h2>{_table(report.networks)}',
        f"<p>The base network:</p><pre>{escape(report.configuration)}</pre>",
        f'<h2 id="machine">Machine and versions</h2><pre>{escape(report.about.machine)}</pre>',
        _table(report.times) if report.times else "",
        f"<h2>Commands</h2><pre>{escape(chr(10).join(map(printable, report.about.commands)))}</pre>",
    ]
    head = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(report.title)}</title><style>{_STYLE}</style>"
    )
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>\n' + "\n".join(body) + "\n</body></html>\n"


def _claim(finding: Finding, note: str) -> str:
    kind = {HOLDS: "holds", FAILS: "fails", UNCLEAR: "unclear", NOT_APPLICABLE: "absent"}.get(
        finding.verdict, "missing"
    )
    claim = finding.claim
    figures = [f"{escape(str(check))} {MARKS[verdict]}" for check, verdict in finding.listed]
    shown = "" if finding.deciding is None else f'<p class="note">{escape(str(finding.deciding))}</p>'
    if len(figures) > 1:
        items = "".join(f"<li>{figure}</li>" for figure in figures)
        shown += f"<details><summary>all {len(figures)} figures</summary><ul>{items}</ul></details>"
    said = f"<p>{escape(note)}</p>" if note else ""
    return (
        f'<div class="claim {kind}"><p>{escape(claim.statement)} '
        f'<span class="note">{claim.name}: {escape(claim.source)}, '
        f'<a href="#{claim.study}">{claim.study}</a></span></p>'
        f'<p class="verdict">{MARKS[finding.verdict]} {escape(finding.verdict)}</p>{said}{shown}</div>'
    )


def _section(section: Section) -> str:
    study = section.study
    head = f'<h2 id="{study.name}">{escape(study.title)} <span class="note">{escape(study.source)}</span></h2>'
    if section.output is None:
        return f"{head}<p>Not complete: {escape(section.missing)} is not measured.</p>"
    tables = "".join(_table(table) for table in section.output.tables.values())
    return head + tables + "".join(_figure(name, plot) for name, plot in section.output.plots.items())


def _figure(name: str, plot: Plot) -> str:
    caption = f'<figcaption class="note">{escape(plot.caption)}</figcaption>'
    return f"<figure>{inline_svg(plot.figure, name)}{caption}</figure>"


def _table(table: Table) -> str:
    """A table with its caption and notes; rows with the paper's numbers get a style of their own."""
    texts = {index for index in range(table.labels)}
    rows = []
    for number, row in enumerate(display_rows(table)):
        kind = ' class="paper"' if "paper" in row[: table.labels] else ""
        cells = [f"<b>{escape(cell)}</b>" if (number, i) in table.bold else escape(cell) for i, cell in enumerate(row)]
        rows.append(f"<tr{kind}>{_cells('td', cells, texts)}</tr>")
    head = _cells("th", [escape(name) for name in table.header], texts)
    box = "scroll" + " broad" * (len(table.header) > _BROAD) + " broadest" * (len(table.header) > _BROADEST)
    notes = "".join(f'<p class="note">{escape(note)}</p>' for note in table.notes)
    return (
        f'<div class="{box}"><table><caption>{escape(table.caption)}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>{notes}"
    )


def _cells(tag: str, cells: Sequence[str], texts: set[int]) -> str:
    def kind(index: int, cell: str) -> str:
        names = (["text"] if index in texts else []) + (["wide"] if len(cell) > 50 else [])
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
