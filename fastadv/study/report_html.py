"""Renders the report as one self-contained HTML page, with styles and figures inside."""

from __future__ import annotations

from html import escape

from fastadv.evaluate.pages import html_page, inline_svg, table_html
from fastadv.study.plan import Plot
from fastadv.study.report_content import Report, Section
from fastadv.study.verdicts import FAILS, HOLDS, MARKS, NOT_APPLICABLE, REASONS, RULE, UNCLEAR, Finding, summary
from fastadv.utils.text import printable

# Verdicts differ by mark, word and weight, not by colour alone; the bars at the left differ in grey, too.
_CLAIMS = """
.claim { border-left: .4rem solid #999; padding: .3rem .8rem; margin: .8rem 0; }
.claim p { margin: .2rem 0; } .claim summary { cursor: pointer; font-size: .86rem; }
.claim ul { margin: .2rem 0; font-size: .86rem; }
.holds { border-color: #1b6e3c; } .fails { border-color: #c05a00; border-left-style: double; }
.unclear { border-color: #8a8a8a; border-left-style: dotted; }
.absent { border-color: #b5b5b5; border-left-style: dashed; } .missing { border-color: #d5d5d5; }
.verdict { font-weight: 700; }
"""


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
        f'<h2 id="networks">Networks</h2>{table_html(report.networks)}',
        f"<p>The base network:</p><pre>{escape(report.configuration)}</pre>",
        f'<h2 id="machine">Machine and versions</h2><pre>{escape(report.about.machine)}</pre>',
        table_html(report.times) if report.times else "",
        f"<h2>Commands</h2><pre>{escape(chr(10).join(map(printable, report.about.commands)))}</pre>",
    ]
    return html_page(report.title, body, style=_CLAIMS)


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
    tables = "".join(table_html(table) for table in section.output.tables.values())
    return head + tables + "".join(_figure(name, plot) for name, plot in section.output.plots.items())


def _figure(name: str, plot: Plot) -> str:
    caption = f'<figcaption class="note">{escape(plot.caption)}</figcaption>'
    return f"<figure>{inline_svg(plot.figure, name)}{caption}</figure>"
