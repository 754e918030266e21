"""``fastadv report``: write a study's report from its records."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from fastadv.cli.arguments import create_parser, parse
from fastadv.cli.verdicts import print_verdicts
from fastadv.study.report import collect_report, write_report
from fastadv.utils.optional_deps import require
from fastadv.utils.text import printable, printable_lines

_DESCRIPTION = """\
Write report.html and report.md into the folder of a study, from its records: tables next to the paper's numbers,
figures, claims with their verdicts, configurations, hardware, versions and commands. report.html needs no other file.
DIR/notes.yaml may give the likely reason for a verdict, such as why a claim does not hold: it maps names of claims, as
in claims.md, to text.
"""


def main(argv: Sequence[str]) -> int:
    """Run ``fastadv report`` with these arguments; returns the exit code."""
    codes = "exit codes: 0 done; 1 a file could not be written; 2 a mistake in the command or the folder."
    parser = create_parser("fastadv report", description=_DESCRIPTION, epilog=codes)
    parser.add_argument("folder", type=Path, metavar="DIR", help="the --out of fastadv study")
    arguments = parse(parser, argv)
    try:
        require("matplotlib", extra="evaluate")
        report = collect_report(arguments.folder)
        paths = write_report(report, arguments.folder)
    except (ValueError, FileNotFoundError, ModuleNotFoundError) as error:
        print(f"fastadv report: {printable_lines(error)}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"fastadv report: {printable_lines(error)}", file=sys.stderr)
        return 1
    print_verdicts(report.findings)
    print(*map(printable, map(str, paths)), sep="\n")
    return 0
