"""``fastadv study``: the paper's experiments, at a small scale or its own."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Sequence
from pathlib import Path

from fastadv.cli.arguments import add_machine_options, create_parser, parse, whole
from fastadv.cli.exits import imported
from fastadv.cli.names import STUDIES


def _listed(name: str, text: str) -> str:
    """A line of the list of studies, indented, and continued below if it is too long for a terminal."""
    return textwrap.fill(text, 78, initial_indent=f"  {name:18} ", subsequent_indent=" " * 21, break_on_hyphens=False)


_DESCRIPTION = f"""\
Repeat an experiment of "Adversarial Machine Learning at Scale": train its networks, attack them, and show its tables
next to the paper's numbers, its figures, and a verdict on each of its claims.

{chr(10).join(_listed(name, about) for name, about in STUDIES.items())}
{_listed("all", "all of these; each network is trained once")}
"""

_EPILOG = """\
The small scale uses Fashion-MNIST, read from --data DIR, or scikit-learn's digits without --data. The imagenet scale
uses ImageNet in --data DIR, with the paper's networks, sizes and iterations.

OUT holds networks/ (shared by the
studies), records/ (the measurements), tables/, figures/, claims.md, report.html and report.md; the verdicts are also
printed. After an interruption, run the same command again to continue. To add the likely reason for a verdict, write
OUT/notes.yaml, which maps names of claims to text, and run fastadv report OUT.

examples:
  fastadv study table1 --out runs/table1
  fastadv study all --data DIR --out runs/study --dry-run
  fastadv study transfer --scale imagenet --data DIR \\
      --processes 8 --out runs/imagenet

exit codes:
  0         done
  1         a training failed (everything that does not need it is done), or a
            file could not be written
  2         a mistake in the command or the data
  130, 143  stopped by SIGINT (Ctrl-C) or SIGTERM; the same command continues
"""


def main(argv: Sequence[str]) -> int:
    """Run ``fastadv study`` with these arguments; returns the exit code."""
    arguments = parse(_parser(), argv)
    code: int = imported("fastadv.cli.run_study", "fastadv study").run(arguments, argv)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = create_parser("fastadv study", description=_DESCRIPTION, epilog=_EPILOG)
    add = parser.add_argument
    add("study", metavar="NAME", choices=[*STUDIES, "all"], help="one of the above")
    add("--scale", choices=["small", "imagenet"], default="small", help="small or imagenet (default: %(default)s)")
    add("--data", metavar="DIR", help="the data set's folder")
    add("--out", type=Path, default=Path("study"), metavar="DIR", help="the output folder (default: %(default)s)")
    add(
        "--dry-run",
        action="store_true",
        help="list the networks with their estimated time and disk space, and do nothing",
    )
    add_machine_options(parser)
    add(
        "--processes",
        type=whole,
        default=1,
        metavar="N",
        help="imagenet: train each network in N processes, one per GPU, started by torchrun (default: 1)",
    )
    add("--epochs", type=whole, metavar="N", help="for a quick look: number of epochs")
    add("--limit", type=whole, metavar="N", help="for a quick look: maximum number of test images")
    return parser
