"""``fastadv report``: one page of what a study found."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from fastadv.cli.arguments import create_parser, parse
from fastadv.study.report import write_report
from fastadv.utils.optional_deps import require
from fastadv.utils.text import printable, printable_lines

_DESCRIPTION = """\
Write report.html and report.md into the folder of a study, from its records alone: tables beside the paper's numbers,
figures, claims with their verdicts, configurations, hardware, versions and commands. The page needs no other file.
Likely reasons for verdicts, such as why a claim does not hold, are taken from DIR/remarks.yaml, names of claims, as
claims.md has them, to text, and are called that.
"""


def main(argv: Sequence[str]) -> int:
    """Run ``fastadv report`` with these arguments; returns the exit code."""
    codes = "exit codes: 0 done; 1 a file could not be written; 2 a mistake in the command."
    parser = create_parser("fastadv report", description=_DESCRIPTION, epilog=codes)
    parser.add_argument("folder", type=Path, metavar="DIR", help="the --out of fastadv study")
    arguments = parse(parser, argv)
    try:
        require("matplotlib", extra="evaluate")
        paths = write_report(arguments.folder)
    except (ValueError, FileNotFoundError, ModuleNotFoundError) as error:
        print(f"fastadv report: {printable_lines(error)}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"fastadv report: {printable_lines(error)}", file=sys.stderr)
        return 1
    print(*map(printable, map(str, paths)), sep="\n")
    return 0
