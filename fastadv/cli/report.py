"""``fastadv report``: write a study's report from its records."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fastadv.cli.arguments import create_parser, parse
from fastadv.cli.exits import ending, imported
from fastadv.utils.optional_deps import require
from fastadv.utils.text import printable

_DESCRIPTION = """\
Write report.html and report.md into the folder of a study, from its records: tables next to the paper's numbers,
figures, claims with their verdicts, configurations, hardware, versions and commands. report.html needs no other file.

DIR/notes.yaml may give the likely reason for a verdict, such as why a claim does not hold: it maps names of claims, as
in claims.md, to text.
"""

_EPILOG = """\
exit codes:
  0         done
  1         a file could not be written
  2         a mistake in the command or the folder
  130, 143  stopped by SIGINT (Ctrl-C) or SIGTERM
"""


def main(argv: Sequence[str]) -> int:
    """Run ``fastadv report`` with these arguments; returns the exit code."""
    parser = create_parser("fastadv report", description=_DESCRIPTION, epilog=_EPILOG)
    parser.add_argument("folder", type=Path, metavar="DIR", help="the --out of fastadv study")
    arguments = parse(parser, argv)
    with ending("fastadv report") as end:
        require("matplotlib", extra="evaluate")
        reports = imported("fastadv.study.report", "fastadv report")
        report = reports.collect_report(arguments.folder)
        end.begin_work()
        paths = reports.write_report(report, arguments.folder)
        imported("fastadv.cli.verdicts", "fastadv report").print_verdicts(report.findings)
        print(*map(printable, map(str, paths)), sep="\n")
    return end.code
