"""``fastadv study``: the paper's experiments, at a small scale or its own."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from fastadv import data
from fastadv.cli.arguments import add_machine_options, create_parser, parse, whole
from fastadv.study import manifest
from fastadv.study.cost import Speeds, seconds_of, training_seconds
from fastadv.study.experiments import STUDIES
from fastadv.study.networks import Network
from fastadv.study.plan import Study
from fastadv.study.report import write_report
from fastadv.study.runner import Failure, Machine, Place, Runner, Work, plan
from fastadv.study.scales import Scale
from fastadv.train.checkpoint import CheckpointError
from fastadv.utils import devices
from fastadv.utils.files import check_not_a_file, locked_folder, make_folder
from fastadv.utils.optional_deps import require
from fastadv.utils.signals import exit_code, interrupt, on_first_signal
from fastadv.utils.text import as_utf8, duration, printable, printable_lines

_DESCRIPTION = f"""\
Repeat an experiment of "Adversarial Machine Learning at Scale": train its networks, attack them, and show its tables
beside the paper's numbers, its figures, and what has become of its claims.

{chr(10).join(f"  {study.name:20} {study.source}: {study.title.lower()}" for study in STUDIES.values())}
  {"all":20} all of these, each network trained once
"""

_EPILOG = """\
At the small scale the data are Fashion-MNIST, read from --data DIR, or scikit-learn's digits without it; at the
imagenet scale ImageNet in --data DIR, with the paper's networks, sizes and iterations. OUT holds networks/ (shared by
the studies), records/ (what was measured), tables/, figures/, claims.md, report.html and report.md. Run the same
command again after an interruption and it goes on where it stopped. To add the likely reason for a verdict,
write OUT/remarks.yaml, from names of claims to words, and run fastadv report OUT.

examples:
  fastadv study table1 --out runs/table1
  fastadv study all --data DIR --out runs/study --dry-run
  fastadv study transfer --scale imagenet --data DIR --processes 8 --out runs/imagenet

exit codes: 0 done; 1 a training failed, and what does not need it is done, or a file could not be written; 2 a mistake
in the command or the data; 130 or 143 stopped by SIGINT (Ctrl-C) or SIGTERM, to be continued with the same command.
"""

_BUSY = 0.8  # share of the asked processor time; alone on a machine a process gets 0.99 of it


def main(argv: Sequence[str]) -> int:
    """Run ``fastadv study`` with these arguments; returns the exit code."""
    arguments = parse(_parser(), argv)
    try:
        with on_first_signal(interrupt):
            return _main(arguments, argv)
    except KeyboardInterrupt as stopped:
        goes_on = (
            "; the same command goes on where it stopped, and until then "
            f"fastadv report {shlex.quote(str(arguments.out))} shows what is measured"
        )
        print(f"fastadv study: interrupted{'' if arguments.dry_run else goes_on}", file=sys.stderr)
        return exit_code(*stopped.args)


def _main(arguments: argparse.Namespace, argv: Sequence[str]) -> int:
    studies = list(STUDIES.values()) if arguments.study == "all" else [STUDIES[arguments.study]]
    try:
        about = manifest.Manifest(arguments.scale, _dataset(arguments), arguments.epochs, arguments.limit)
        scale, place = about.create_scale(), Place(arguments.out)
        machine = _machine(arguments)
        speeds = Speeds(scale, machine.device)
        check_not_a_file(arguments.out)
        manifest.check(arguments.out, about)
        if arguments.dry_run:
            _show_plan(studies, scale, place, speeds)
            return 0
        machine.config(scale.adversarial("the base network"))
        data.load(scale.base.data.name, machine.data, False)
        make_folder(arguments.out)
    except (ValueError, OSError, ModuleNotFoundError, CheckpointError) as error:
        print(f"fastadv study: {printable_lines(error)}", file=sys.stderr)
        return 2
    try:
        with locked_folder(arguments.out):
            command = as_utf8(shlex.join(["fastadv", "study", *argv]))
            manifest.update(place.folder, about, [one.name for one in studies], command)
            failed = _run(studies, scale, place, machine, plan(studies, scale, speeds))
    except ValueError as error:
        print(f"fastadv study: {printable_lines(error)}", file=sys.stderr)
        return 2
    except (OSError, CheckpointError) as error:
        print(f"fastadv study: {printable_lines(error)}", file=sys.stderr)
        return 1
    for network, reason in failed:
        print(f"fastadv study: the training of {network.name} failed: {printable_lines(reason)}", file=sys.stderr)
    return 1 if failed else 0


def _run(
    studies: Sequence[Study], scale: Scale, place: Place, machine: Machine, work: dict[str, list[Work]]
) -> list[tuple[Network, Failure]]:
    failed = Runner(place, machine, scale).run(studies, work)
    for path in write_report(place.folder):
        print(printable(str(path)))
    return failed


def _parser() -> argparse.ArgumentParser:
    parser = create_parser("fastadv study", description=_DESCRIPTION, epilog=_EPILOG)
    add = parser.add_argument
    add("study", metavar="NAME", choices=[*STUDIES, "all"], help="one of the above")
    add("--scale", choices=["small", "imagenet"], default="small", help="small or imagenet (default: %(default)s)")
    add("--data", metavar="DIR", help="the data set's folder")
    add("--out", type=Path, default=Path("study"), metavar="DIR", help="where to write (default: %(default)s)")
    add("--dry-run", action="store_true", help="list the networks, the time and the disk, and do nothing")
    add_machine_options(parser)
    add(
        "--processes",
        type=whole,
        default=1,
        metavar="N",
        help="imagenet: train each network by so many processes, one a GPU, which torchrun starts (default: 1)",
    )
    add("--epochs", type=whole, metavar="N", help="for a quick look: passes over the training set")
    add("--limit", type=whole, metavar="N", help="for a quick look: test images at most")
    return parser


def _dataset(arguments: argparse.Namespace) -> str:
    if arguments.scale == "imagenet":
        if arguments.data is None and not arguments.dry_run:
            raise ValueError("--scale imagenet needs --data, the folder with train/ and val/")
        return "imagenet"
    if arguments.data is None:
        print(
            "no --data: the data are scikit-learn's digits; with Fashion-MNIST's folder, Fashion-MNIST", file=sys.stderr
        )
        return "digits"
    return "fashion_mnist"


def _machine(arguments: argparse.Namespace) -> Machine:
    require("matplotlib", extra="evaluate")
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    return Machine(arguments.data, devices.resolve(arguments.device), arguments.threads, arguments.processes)


# --- dry run ---------------------------------------------------------------------------------------------------------


def _show_plan(studies: Sequence[Study], scale: Scale, place: Place, speeds: Speeds) -> None:
    """Networks with their cost, then studies with theirs, on the terminal."""
    networks = {network.id: network for study in reversed(studies) for network in reversed(study.networks(scale))}
    used = {one: [study.name for study in studies if one in {n.id for n in study.networks(scale)}] for one in networks}
    left = total = disk = 0.0
    rows = []
    for one, network in sorted(networks.items(), key=lambda item: list(STUDIES).index(used[item[0]][0])):
        seconds = training_seconds(network, scale, speeds.of(network))
        trained = place.is_trained(network)
        total, left = total + seconds, left + (0 if trained else seconds)
        disk += speeds.of(network).bytes
        rows.append((one, network.name, ", ".join(used[one]), "trained" if trained else duration(seconds)))
    _print_table("networks", ("id", "network", "studies", "training"), rows)
    costs = []
    for study in studies:
        trainings = sum(training_seconds(network, scale, speeds.of(network)) for network in study.networks(scale))
        evaluations = seconds_of(study.evaluations(scale), scale, speeds)
        total, left = total + evaluations, left + evaluations
        costs.append(
            (study.name, study.source, duration(trainings), duration(evaluations), duration(trainings + evaluations))
        )
    _print_table("studies, each alone", ("study", "paper", "training", "evaluation", "together"), costs)
    print(
        f"{len(networks)} networks; {duration(total)} in all, {duration(left)} of them left if no evaluation is done; "
        f"{disk / 2**20:,.0f} MiB of checkpoints.\n"
        f"Estimated from passes of each architecture over random images on this machine just now; reading images and "
        f"writing checkpoints come on top.{_on_a_busy_machine(speeds.share, total)}\n\n{scale.account}"
    )


def _on_a_busy_machine(share: float | None, total: float) -> str:
    """A line on an estimate that other work made too long; "" if none did."""
    if share is None or share > _BUSY:
        return ""
    return (
        f"\nThis process got {100 * share:.0f} % of the processor time it asked for: other work runs here, and makes "
        f"this too much. On an idle machine it is {duration(total * share)} in all at most, and may be far less, as "
        "threads wait for each other here."
    )


def _print_table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    box, console = (require(f"rich.{name}", extra="evaluate") for name in ("box", "console"))
    table: Any = require("rich.table", extra="evaluate").Table(title=title, box=box.SIMPLE_HEAD)
    for name in header:
        table.add_column(name)
    for row in rows:
        table.add_row(*row)
    console.Console().print(table)
