"""``fastadv transfer``: the paper's Tables 4 and 6 for your own models."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fastadv.cli.arguments import Parser, create_parser, parse, whole
from fastadv.cli.evaluate import add_run_options, add_subjects
from fastadv.cli.exits import imported
from fastadv.cli.model_options import add_options

_DESCRIPTION = """\
Make adversarial images with each model and show them to every other. The transfer rate is measured on the images that
fool the source, the error rate on all images; the tables are laid out as Tables 4 and 6 of "Adversarial Machine
Learning at Scale", with Wilson's 95 % confidence intervals. With several eps, curves as in its Figures 2 and 5 are
drawn too.
"""

_EPILOG = """\
Every number is recorded in OUT/transfer.jsonl as soon as its source and attack are done. After an interruption, run the
same command again to continue. If you add an attack, an eps or a model, only what is new is measured.

The file keeps all records. Tables and figures are made from those on the same images and with the same seed as this
command's; those that showed other records are removed, and a line says so.

Models may take their input in different spaces: images are converted without rounding.

examples:
  fastadv transfer A=runs/seed-0 B=runs/seed-1 C=runs/elu --eps 16 --out results
  fastadv transfer A=runs/seed-0 D=timm/resnet18@weights.pth \\
      --space symmetric --eps 2,4,8,16 --curve A:D

exit codes:
  0         done
  1         a file could not be read or written
  2         a mistake in the command or the data
  130, 143  stopped by SIGINT (Ctrl-C) or SIGTERM; the same command continues
"""


def main(argv: Sequence[str]) -> int:
    """Run ``fastadv transfer`` with these arguments; returns the exit code."""
    arguments = parse(_parser(), argv)
    code: int = imported("fastadv.cli.measure_transfer", "fastadv transfer").run(arguments)
    return code


def _parser() -> Parser:
    parser = create_parser("fastadv transfer", description=_DESCRIPTION, epilog=_EPILOG)
    add = parser.add_argument
    add_subjects(parser, attacks_by_default="fgsm,iter_basic,iter_ll", eps_by_default="16")
    add(
        "--curve",
        metavar="SOURCE:TARGET",
        help="with several eps, the pair whose curves are drawn (default: the first two models)",
    )
    add_options(parser)
    add(
        "--limit",
        type=whole,
        metavar="N",
        help="use N test images, drawn at random by the seed (default: 1000, as in the paper)",
    )
    add_run_options(parser)
    add("--out", type=Path, default=Path("transfer"), metavar="DIR", help="output folder (default: %(default)s)")
    return parser
