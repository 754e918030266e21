"""``fastadv transfer``: the paper's Tables 4 and 6 for one's own models."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from fastadv.cli.arguments import create_parser, parse, whole
from fastadv.cli.evaluate import add_run_options, add_subjects, resumable, settings_of, sweep_of
from fastadv.cli.model_options import add_options
from fastadv.cli.model_specs import load_subjects
from fastadv.distributed import Processes
from fastadv.evaluate.figures import save_figure
from fastadv.evaluate.folder import beside, remark_on_left_out
from fastadv.evaluate.records import RecordFile
from fastadv.evaluate.sweep import Subject, Sweep
from fastadv.evaluate.tables import save_table
from fastadv.evaluate.terminal_tables import print_table
from fastadv.evaluate.transfer import TransferRecord, run_transfer
from fastadv.evaluate.transfer_tables import MEASURES, transfer_figure, transfer_table
from fastadv.utils import devices
from fastadv.utils.files import make_folder
from fastadv.utils.optional_deps import require
from fastadv.utils.text import as_utf8, printable

_DESCRIPTION = """\
Make adversarial images with each model and show them to every other: the transfer rate, of the images that fool the
source, and the error rate, of all images, in the layout of Tables 4 and 6 of "Adversarial Machine Learning at Scale",
with 95 % confidence intervals. With several eps, the curves of its Figures 2 and 5 too.
"""

_EPILOG = """\
Every number is recorded in OUT/transfer.jsonl as soon as its source and attack are done. Run the same command again
after an interruption and it goes on where it stopped; add an attack, an eps or a model and what is new is measured.
Models may take their input in different spaces: images are converted, unrounded.

examples:
  fastadv transfer A=runs/seed-0 B=runs/seed-1 C=runs/elu --eps 16 --out results
  fastadv transfer A=runs/seed-0 D=timm/resnet18@weights.pth --space symmetric --eps 2,4,8,16 --curve A:D

exit codes: 0 done; 1 a file could not be read or written; 2 a mistake in the command or the data; 130 or 143 stopped by
SIGINT (Ctrl-C) or SIGTERM, to be continued with the same command.
"""


def main(argv: Sequence[str]) -> int:
    """Run ``fastadv transfer`` with these arguments; returns the exit code."""
    arguments = parse(_parser(), argv)

    def prepare(_: Processes) -> tuple[Path, Callable[[], None]]:
        sweep, subjects, file = _prepare(arguments)

        def measure() -> None:
            with settings_of(arguments, sweep.device):
                records = run_transfer(sweep, subjects, file)
            together, left_out = beside(records, file.records)
            written = [file.path, *_write(together, arguments)]
            print("written:", *map(printable, map(str, written)), sep="\n  ")
            if left_out:
                print(remark_on_left_out(left_out), file=sys.stderr)

        return arguments.out, measure

    return resumable("fastadv transfer", prepare)


def _parser() -> argparse.ArgumentParser:
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
        default=1000,
        metavar="N",
        help="N test images drawn at random by the seed (default: %(default)s, as in the paper)",
    )
    add_run_options(parser)
    add("--out", type=Path, default=Path("transfer"), metavar="DIR", help="where to write (default: %(default)s)")
    return parser


def _prepare(arguments: argparse.Namespace) -> tuple[Sweep, list[Subject], RecordFile[TransferRecord]]:
    """All that can be wrong with a command is found here, before any work is done."""
    require("matplotlib", extra="evaluate")
    if len(arguments.models) < 2:
        raise ValueError("transfer needs two models or more: what fools one is shown to the others")
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    loaded = load_subjects(arguments.models, arguments)
    names = [subject.name for subject in loaded.subjects]
    arguments.curve = _pair(arguments.curve, names)
    sweep = sweep_of(arguments, loaded, devices.resolve(arguments.device))
    make_folder(arguments.out)
    return sweep, loaded.subjects, RecordFile(arguments.out / "transfer.jsonl", TransferRecord)


def _pair(text: str | None, names: Sequence[str]) -> tuple[str, str]:
    if text is None:
        return names[0], names[1]
    source, _, target = printable(as_utf8(text)).partition(":")
    if source not in names or target not in names:
        raise ValueError(f"--curve is SOURCE:TARGET, two of {', '.join(names)}, got {text!r}")
    return source, target


def _write(records: Sequence[TransferRecord], arguments: argparse.Namespace) -> list[Path]:
    """Tables and figures below OUT; the tables of the command's sizes on the terminal too."""
    paths = []
    for measure in MEASURES:
        sizes = sorted({record.eps for record in records})
        for eps in sizes:
            table = transfer_table(records, measure=measure, eps=eps)
            if eps in arguments.eps:
                print_table(table)
            paths += save_table(table, arguments.out / "tables" / f"transfer-{measure}-eps-{eps:g}")
        if len(sizes) > 1:
            source, target = arguments.curve
            figure = transfer_figure(records, source=source, target=target, measure=measure)
            paths += save_figure(figure, arguments.out / "figures" / f"transfer-{measure}")
    return paths
