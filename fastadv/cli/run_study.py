"""Run ``fastadv study`` once its arguments are parsed."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from typing import Any

import torch

from fastadv import data
from fastadv.cli.exits import DONE, FAILED, ending
from fastadv.cli.verdicts import print_verdicts
from fastadv.study import manifest
from fastadv.study.cost import Speeds, total_evaluation_seconds, training_seconds
from fastadv.study.experiments import STUDIES
from fastadv.study.networks import Network
from fastadv.study.plan import Study
from fastadv.study.report import collect_report, write_report
from fastadv.study.runner import Failure, Machine, Runner, StudyFolder, WorkItem, plan
from fastadv.study.scales import Scale
from fastadv.train.checkpoint import CheckpointError
from fastadv.utils import devices
from fastadv.utils.files import check_not_a_file, locked_folder, make_folder
from fastadv.utils.optional_deps import require
from fastadv.utils.text import as_utf8, duration, printable, printable_lines

_BUSY = 0.8  # share of processor time below which other programs are assumed to run; an idle machine gives 0.99


def run(arguments: argparse.Namespace, argv: Sequence[str]) -> int:
    """Run the studies as ``fastadv study`` was told, by arguments parsed from ``argv``; returns the exit code."""
    how_to_continue = (
        f"the same command continues, and fastadv report {shlex.quote(str(arguments.out))} shows the results so far"
    )
    interrupted = "" if arguments.dry_run else how_to_continue
    with ending("fastadv study", failures=(CheckpointError,), interrupted=interrupted) as end:
        studies = list(STUDIES.values()) if arguments.study == "all" else [STUDIES[arguments.study]]
        about = manifest.Manifest(arguments.scale, _dataset(arguments), arguments.epochs, arguments.limit)
        scale, folder = about.create_scale(), StudyFolder(arguments.out)
        machine = _machine(arguments)
        speeds = Speeds(scale, machine.device)
        check_not_a_file(arguments.out)
        manifest.check(arguments.out, about)
        if arguments.dry_run:
            _show_plan(studies, scale, folder, speeds)
            return end.code
        machine.config(scale.adversarial("the base network"))
        data.load(scale.base.data.name, machine.data, False)
        make_folder(arguments.out)
        end.begin_work()
        with locked_folder(arguments.out):
            command = as_utf8(shlex.join(["fastadv", "study", *argv]))
            manifest.update(folder.path, about, [one.name for one in studies], command)
            failed = _run(studies, scale, folder, machine, plan(studies, scale, speeds))
        for network, reason in failed:
            print(f"fastadv study: the training of {network.name} failed: {printable_lines(reason)}", file=sys.stderr)
        end.code = FAILED if failed else DONE
    return end.code


def _run(
    studies: Sequence[Study], scale: Scale, folder: StudyFolder, machine: Machine, work: dict[str, list[WorkItem]]
) -> list[tuple[Network, Failure]]:
    failed = Runner(folder, machine, scale).run(studies, work)
    report = collect_report(folder.path)
    paths = write_report(report, folder.path)
    print_verdicts(report.findings)
    for path in paths:
        print(printable(str(path)))
    return failed


def _dataset(arguments: argparse.Namespace) -> str:
    if arguments.scale == "imagenet":
        if arguments.data is None and not arguments.dry_run:
            raise ValueError("--scale imagenet needs --data, the folder with train/ and val/")
        return "imagenet"
    if arguments.data is None:
        print("no --data: using scikit-learn's digits; pass Fashion-MNIST's folder to use that", file=sys.stderr)
        return "digits"
    return "fashion_mnist"


def _machine(arguments: argparse.Namespace) -> Machine:
    require("matplotlib", extra="evaluate")
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    return Machine(arguments.data, devices.resolve(arguments.device), arguments.threads, arguments.processes)


# --- dry run ---------------------------------------------------------------------------------------------------------


def _show_plan(studies: Sequence[Study], scale: Scale, folder: StudyFolder, speeds: Speeds) -> None:
    """Print the networks and the studies with their estimated costs."""
    networks = {network.id: network for study in reversed(studies) for network in reversed(study.networks(scale))}
    used = {one: [study.name for study in studies if one in {n.id for n in study.networks(scale)}] for one in networks}
    left = total = disk = 0.0
    rows = []
    for one, network in sorted(networks.items(), key=lambda item: list(STUDIES).index(used[item[0]][0])):
        seconds = training_seconds(network, scale, speeds.of(network))
        trained = folder.is_trained(network)
        total, left = total + seconds, left + (0 if trained else seconds)
        disk += speeds.of(network).bytes
        rows.append((one, network.name, ", ".join(used[one]), "trained" if trained else duration(seconds)))
    _print_table("networks", ("id", "network", "studies", "training"), rows)
    costs = []
    for study in studies:
        trainings = sum(training_seconds(network, scale, speeds.of(network)) for network in study.networks(scale))
        evaluations = total_evaluation_seconds(study.evaluations(scale), scale, speeds)
        total, left = total + evaluations, left + evaluations
        costs.append(
            (study.name, study.source, duration(trainings), duration(evaluations), duration(trainings + evaluations))
        )
    _print_table("studies, each alone", ("study", "paper", "training", "evaluation", "together"), costs)
    print(
        f"{len(networks)} networks; {duration(total)} in total, {duration(left)} left if no evaluation is done yet; "
        f"{disk / 2**20:,.0f} MiB of checkpoints.\n"
        f"Estimated by timing passes of each architecture over random images on this machine; reading images and "
        f"writing checkpoints come on top.{_busy_machine_note(speeds.processor_share, total)}\n\n{scale.description}"
    )


def _busy_machine_note(share: float | None, total: float) -> str:
    """A note that other programs made the estimate too high; "" if none did."""
    if share is None or share > _BUSY:
        return ""
    return (
        f"\nThis process got only {100 * share:.0f} % of its processor time: other programs are running, and the "
        f"estimate is too high. On an idle machine it is at most {duration(total * share)} in total, and possibly much "
        "less, because threads wait for each other here."
    )


def _print_table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    box, console = (require(f"rich.{name}", extra="evaluate") for name in ("box", "console"))
    table: Any = require("rich.table", extra="evaluate").Table(title=title, box=box.SIMPLE_HEAD)
    for name in header:
        table.add_column(name)
    for row in rows:
        table.add_row(*row)
    console.Console().print(table)
