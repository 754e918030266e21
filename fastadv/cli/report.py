"""``fastadv report``: one page with the findings of a study."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fastadv.cli.arguments import create_parser, parse
from fastadv.cli.exits import ending, imported
from fastadv.utils.optional_deps import require
from fastadv.utils.text import printable

_DESCRIPTION = """\
Write report.html and report.md into the folder of a study, from its records alone: tables beside the paper's numbers,
figures, claims with their verdicts, configurations, hardware, versions and commands. The page is self-contained.

Likely reasons for verdicts, such as why a claim does not hold, come from DIR/remarks.yaml, which maps names of claims,
as in claims.md, to text. The page calls them likely reasons.
"""

_EPILOG = """\
exit codes:
  0         done
  1         a file could not be written
  2         a mistake in the command
  130, 143  stopped by SIGINT (Ctrl-C) or SIGTERM
"""


def main(argv: Sequence[str]) -> int:
    """Run ``fastadv report`` with these arguments; returns the exit code."""
    parser = create_parser("fastadv report", description=_DESCRIPTION, epilog=_EPILOG)
    parser.add_argument("folder", type=Path, metavar="DIR", help="the --out of fastadv study")
    arguments = parse(parser, argv)
    with ending("fastadv report") as end:
        require("matplotlib", extra="evaluate")
        write_report = imported("fastadv.study.report", "fastadv report").write_report
        end.begin_work()
        try:
            paths = write_report(arguments.folder)
        except FileNotFoundError as error:  # no study there
            raise ValueError(str(error)) from error
        print(*map(printable, map(str, paths)), sep="\n")
    return end.code
