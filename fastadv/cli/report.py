"""``fastadv report``: write the report of a study, or of evaluations, from their records."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fastadv.cli.arguments import create_parser, parse
from fastadv.cli.exits import ending, imported
from fastadv.utils.optional_deps import require
from fastadv.utils.text import printable

_STUDY = "study.json"
_DESCRIPTION = """\
Write report.html and report.md into a folder, from its records. report.html needs no other file.

For the folder of a study: tables next to the paper's numbers, figures, claims with their verdicts, configurations,
hardware, versions and commands. DIR/notes.yaml may give the likely reason for a verdict, such as why a claim does not
hold: it maps names of claims, as in claims.md, to text.

For a folder of evaluate or transfer, or one that holds several: a table of all attacks with the worst case per image, a
figure, and the tables of transfer. Records of other images, another seed or other weights get a part of their own.
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
    parser.add_argument("folder", type=Path, metavar="DIR", help="the --out of fastadv study, evaluate or transfer")
    arguments = parse(parser, argv)
    with ending("fastadv report") as end:
        require("matplotlib", extra="evaluate")
        evaluations = imported("fastadv.evaluate.report", "fastadv report")
        terminal = imported("fastadv.evaluate.terminal_tables", "fastadv report")
        if not (arguments.folder / _STUDY).exists() and evaluations.has_records(arguments.folder):
            parts = evaluations.collect_parts(arguments.folder)
            end.begin_work()
            paths = evaluations.write_report(parts, arguments.folder)
            for table in (table for part in parts for table in part.tables.values()):
                terminal.print_table(table)
            print(*map(printable, map(str, paths)), sep="\n")
            return end.code
        reports = imported("fastadv.study.report", "fastadv report")
        report = reports.collect_report(arguments.folder)
        end.begin_work()
        paths = reports.write_report(report, arguments.folder)
        imported("fastadv.cli.verdicts", "fastadv report").print_verdicts(report.findings)
        print(*map(printable, map(str, paths)), sep="\n")
    return end.code
