"""Collects the benchmarks' tables: printed at the end, and written to a dated file with ``--report``."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.harness import TABLES
from benchmarks.machine import describe, slug

RESULTS = Path(__file__).parent / "results"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--report", metavar="FILE", help="write the tables as Markdown; 'auto' names the file by date and hardware"
    )


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    tables = [table.markdown() for table in TABLES if table.rows]
    if not tables:
        return
    text = "\n\n".join(["# Benchmarks", describe(), *tables]) + "\n"
    terminalreporter.write_line("\n" + text)
    target = config.getoption("--report")
    if target:
        path = RESULTS / f"{slug()}.md" if target == "auto" else Path(target)
        path.write_text(text)
        terminalreporter.write_line(f"written to {path}")
