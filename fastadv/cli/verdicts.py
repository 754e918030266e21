"""The verdicts of a study on the terminal."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from fastadv.study.verdicts import MARKS, Finding, summary
from fastadv.utils.optional_deps import require


def print_verdicts(findings: Sequence[Finding]) -> None:
    """Print a table of claims and verdicts, which fits into 80 columns, and the number of claims with each verdict."""
    if not findings:
        return
    box, console, tables = (require(f"rich.{name}", extra="evaluate") for name in ("box", "console", "table"))
    table = tables.Table(title="Verdicts on the paper's claims", box=box.SIMPLE_HEAD)
    for name in ("Claim", "Paper", "Verdict"):
        table.add_column(name, overflow="fold")
    for _, group in itertools.groupby(findings, key=lambda finding: finding.claim.study):
        for finding in group:
            verdict = finding.verdict.removesuffix(" at this scale")
            table.add_row(finding.claim.name, finding.claim.source, f"{MARKS[finding.verdict]} {verdict}")
        table.add_section()
    terminal = console.Console()
    terminal.print(table)
    terminal.print(f"{summary(findings)} claims.md lists the figures behind each verdict.\n", highlight=False)
