"""Prints the benchmarks' tables at the end of a run, and writes them to a file with ``--report``."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from pathlib import Path

import pytest

from benchmarks.harness import TABLES
from benchmarks.machine import COMPARED, describe, slug

RESULTS = Path(__file__).parent / "results"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--report", metavar="FILE", help="write the tables as Markdown; 'auto' names the file by date and hardware"
    )


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    tables = [table.markdown() for table in TABLES if table.rows]
    if not tables:
        return
    head = [describe(COMPARED), f"- command: `{command(config.invocation_params.args)}`"]
    head += [f"- not measured: {table.title}: {'; '.join(table.missing)}" for table in TABLES if table.missing]
    text = "\n\n".join(["# Benchmarks", "\n".join(head), *tables]) + "\n"
    terminalreporter.write_line("\n" + text)
    target = config.getoption("--report")
    if target:
        path = RESULTS / f"{slug()}.md" if target == "auto" else Path(target)
        path.write_text(text)
        terminalreporter.write_line(f"written to {path}")


def command(arguments: Sequence[object]) -> str:
    """The command of this run, with the environment variables that select what is measured."""
    chosen = [
        f"{name}={shlex.quote(value)}"
        for name, value in os.environ.items()
        if name.startswith(("FASTADV_BENCH_", "FASTADV_TEST_"))
    ]
    return " ".join([*sorted(chosen), "pytest", *(shlex.quote(str(argument)) for argument in arguments)])
