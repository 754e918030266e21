"""Runs studies: trains missing networks, writes evaluations to records, and continues after interruptions."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from signal import Signals
from typing import Any

import torch

from fastadv import data
from fastadv.evaluate.label_leaking import LeakRecord, run_leaking
from fastadv.evaluate.records import CLEAN, Record, RecordFile
from fastadv.evaluate.sweep import Images, Subject, Sweep, fingerprint, run
from fastadv.evaluate.transfer import TransferRecord, run_transfer
from fastadv.study.cost import Speeds, evaluation_seconds, training_seconds
from fastadv.study.evaluations import Leaking, Robustness, Transfer
from fastadv.study.networks import Network, vary
from fastadv.study.plan import Study
from fastadv.study.results import Results
from fastadv.study.scales import Scale
from fastadv.train import checkpoint
from fastadv.train.build import create_trainer
from fastadv.train.check_classes import check_classes
from fastadv.train.config import TrainConfig
from fastadv.train.config_parsing import dump_config
from fastadv.train.non_finite import NonFiniteLoss
from fastadv.train.trainer import Trainer
from fastadv.utils.signals import on_first_signal
from fastadv.utils.text import duration

BATCH = 100
SEED = 0
_TOLERANCE = 0.1


class ProcessesFailed(RuntimeError):
    """Raised if training in several processes ended without a network; their output says why."""


# Failures of one training after which everything that does not need its network is still done.
Failure = NonFiniteLoss | ProcessesFailed


@dataclass(frozen=True)
class WorkTime:
    """How long a training or evaluation took, if it was not interrupted.

    Args:
        study: the study that it was done for.
        what: description, as on the progress line.
        seconds: time in this run, excluding earlier runs that were interrupted.
    """

    study: str
    what: str
    seconds: float

    @property
    def key(self) -> str:
        """Identifies the training or evaluation."""
        return f"{self.study}: {self.what}"


@dataclass(frozen=True)
class StudyFolder:
    """The files of a study.

    Methods that open a file of records raise ValueError for a line that is not a record.

    Args:
        path: the folder given by ``--out``.
    """

    path: Path

    def run(self, network: Network) -> Path:
        """The folder of a network's run."""
        return self.path / "networks" / network.id

    def robustness(self) -> RecordFile[Record]:
        """Records of accuracies."""
        return RecordFile(self.path / "records" / "robustness.jsonl", Record)

    def transfer(self) -> RecordFile[TransferRecord]:
        """Records of transfers."""
        return RecordFile(self.path / "records" / "transfer.jsonl", TransferRecord)

    def leaking(self) -> RecordFile[LeakRecord]:
        """Records of leaked labels."""
        return RecordFile(self.path / "records" / "leaking.jsonl", LeakRecord)

    def times(self) -> RecordFile[WorkTime]:
        """Times of trainings and evaluations."""
        return RecordFile(self.path / "times.jsonl", WorkTime)

    def results(self) -> Results:
        """Everything measured so far."""
        return Results(self.robustness().records, self.transfer().records, self.leaking().records)

    def is_trained(self, network: Network) -> bool:
        """Whether the network's run is complete.

        Raises:
            CheckpointError: if it has checkpoints, but none is usable.
        """
        found = checkpoint.newest(self.run(network))
        return found is not None and found[1].meta.epoch >= network.config.epochs


@dataclass(frozen=True)
class Machine:
    """The machine and the data that a study runs on.

    Args:
        data: the data set's folder; None if it needs none.
        device: for training and evaluation.
        threads: CPU threads; None for PyTorch's default.
        processes: number of processes that train a network together, started by torchrun if more than one.
    """

    data: str | None
    device: torch.device
    threads: int | None
    processes: int = 1

    def config(self, network: Network) -> TrainConfig:
        """The configuration for training here: the minibatches of an iteration are shared among the processes.

        Raises:
            ValueError: if sharing them changes their number by more than a tenth.
        """
        wanted = network.config.accumulate
        accumulate = max(1, round(wanted / self.processes))
        if abs(accumulate * self.processes - wanted) > _TOLERANCE * wanted:
            raise ValueError(
                f"an iteration takes {wanted} minibatches of {network.config.m}, but {self.processes} processes would "
                f"take {accumulate * self.processes}, which is a different training: choose another --processes"
            )
        changes = {
            "data.root": self.data,
            "device": self.device.type if self.processes > 1 else str(self.device),
            "threads": self.threads,
            "keep": 1,
            "accumulate": accumulate,
        }
        return vary(network.config, changes)


@dataclass(frozen=True)
class WorkItem:
    """One piece of work: the training of a network, or part of an evaluation.

    Args:
        what: description for the progress line.
        seconds: estimated time.
        network: the network to train; None for an evaluation.
        part: the evaluation, restricted to its networks; None for a training.
    """

    what: str
    seconds: float
    network: Network | None = None
    part: Robustness | Transfer | Leaking | None = None

    @property
    def needs(self) -> set[str]:
        """Ids of the networks that it trains or evaluates."""
        networks = () if self.part is None else self.part.networks
        return {network.id for network in (*networks, *([self.network] if self.network else []))}


def plan(studies: Sequence[Study], scale: Scale, speeds: Speeds) -> dict[str, list[WorkItem]]:
    """The work of each study, in order. A network that several studies need is trained for the first of them."""
    seen: set[str] = set()
    work: dict[str, list[WorkItem]] = {}
    for study in studies:
        pieces = work.setdefault(study.name, [])
        for network in study.networks(scale):
            if network.id not in seen:
                seconds = training_seconds(network, scale, speeds.of(network))
                pieces.append(WorkItem(f"train {network.name}", seconds, network=network))
                seen.add(network.id)
        for part in study.evaluations(scale):
            pieces += _pieces(part, scale, speeds)
    return work


def _pieces(part: Robustness | Transfer | Leaking, scale: Scale, speeds: Speeds) -> Iterator[WorkItem]:
    """A transfer needs all of its networks at once; other evaluations take one network at a time."""
    costs = [evaluation_seconds(part, network, scale, speeds.of(network)) for network in part.networks]
    if isinstance(part, Transfer):
        yield WorkItem(f"transfer by {', '.join(part.attacks)}", sum(costs), part=part)
        return
    for network, seconds in zip(part.networks, costs, strict=True):
        by = "labels leaked" if isinstance(part, Leaking) else ", ".join(part.attacks)
        yield WorkItem(f"evaluate {network.name}: {by}", seconds, part=replace(part, networks=(network,)))


class Runner:
    """Does the work of studies, one piece at a time.

    Args:
        folder: where files go.
        machine: the machine and the data.
        scale: the scale of the studies.
    """

    def __init__(self, folder: StudyFolder, machine: Machine, scale: Scale) -> None:
        self.folder = folder
        self.machine = machine
        self.scale = scale
        self._images: Images | None = None
        self._trainer: Trainer | None = None
        self._child: subprocess.Popen[bytes] | None = None
        self._stopped_by: Signals | None = None

    def run(self, studies: Sequence[Study], work: dict[str, list[WorkItem]]) -> list[tuple[Network, Failure]]:
        """Train and measure everything that the studies need.

        Returns:
            The networks whose training failed. Work that needs them is skipped; everything else is done.

        Raises:
            KeyboardInterrupt: if a signal arrived, which is its argument; finished work is on disk.
            OSError: if a file could not be written.
        """
        progress = _Progress(work)
        failed: list[tuple[Network, Failure]] = []
        with on_first_signal(self._stop):
            for study in studies:
                for piece in work[study.name]:
                    if piece.needs & {network.id for network, _ in failed} or self._is_done(piece):
                        progress.skip(piece)
                        continue
                    progress.announce(study, piece)
                    start = time.perf_counter()
                    try:
                        self._do(piece)
                    except (NonFiniteLoss, ProcessesFailed) as error:
                        assert piece.network is not None
                        failed.append((piece.network, error))
                        progress.skip(piece)
                        continue
                    seconds = time.perf_counter() - start
                    progress.done(piece, seconds)
                    self.folder.times().append(WorkTime(study.name, piece.what, round(seconds, 3)))
        return failed

    def _stop(self, number: Signals) -> None:
        self._stopped_by = number
        if self._child is not None:
            self._child.send_signal(number)
            return
        if self._trainer is None:
            raise KeyboardInterrupt(number)
        print(f"{number.name}: stopping after this iteration; a second one stops at once", file=sys.stderr)
        self._trainer.request_stop()

    def _is_done(self, piece: WorkItem) -> bool:
        if piece.network is not None:
            return self.folder.is_trained(piece.network)
        return piece.part is not None and self._is_measured(piece.part)

    def _is_measured(self, part: Robustness | Transfer | Leaking) -> bool:
        """Whether the whole part has records, made with the current weights."""
        n = self.scale.test_images if part.limit is None else min(part.limit, self.scale.test_images)
        sizes = [float(eps) for eps in part.eps]
        networks = [(network.id, self._checkpoint(network)) for network in part.networks]
        have: set[Any]
        want: set[Any]
        if isinstance(part, Robustness):
            have = {((r.model, r.checkpoint), (r.attack, r.eps), r.n) for r in self.folder.robustness().records}
            want = set(product(networks, [(CLEAN, 0.0), *product(part.attacks, sizes)], [n]))
        elif isinstance(part, Transfer):
            have = {
                ((r.source, r.source_checkpoint), (r.target, r.target_checkpoint), r.attack, r.eps, r.n)
                for r in self.folder.transfer().records
            }
            want = set(product(networks, networks, part.attacks, sizes, [n]))
        else:
            have = {((r.model, r.checkpoint), (r.attack, r.without), r.eps, r.n) for r in self.folder.leaking().records}
            want = set(product(networks, part.pairs, sizes, [n]))
        return want <= have

    def _checkpoint(self, network: Network) -> str:
        """The hash of the network's weights, as in records; "" if there are none (the evaluation reports why)."""
        found = checkpoint.newest(self.folder.run(network))
        if found is None:
            return ""
        weights = found[1].averaged if _uses_averaged_weights(network) else found[1].weights
        return "" if weights is None else fingerprint(weights)

    def _do(self, piece: WorkItem) -> None:
        if piece.network is not None:
            self._train(piece.network)
        elif piece.part is not None:
            self._evaluate(piece.part)

    def _evaluate(self, part: Robustness | Transfer | Leaking) -> None:
        subjects = self._subjects(part)
        if isinstance(part, Robustness):
            run(self._sweep(part, part.attacks), subjects, self.folder.robustness())
        elif isinstance(part, Transfer):
            run_transfer(self._sweep(part, part.attacks), subjects, self.folder.transfer())
        else:
            run_leaking(self._sweep(part, ()), part.pairs, subjects, self.folder.leaking())

    def _train(self, network: Network) -> None:
        if self.folder.is_trained(network):
            return
        if self.machine.processes > 1:
            self._train_by_torchrun(network)
            return
        self._trainer = create_trainer(self.machine.config(network), self.folder.run(network), resume="auto")
        try:
            self._trainer.fit()
        finally:
            self._trainer = None
        if self._stopped_by is not None:
            raise KeyboardInterrupt(self._stopped_by)

    def _train_by_torchrun(self, network: Network) -> None:
        """Run ``fastadv train`` in new processes, and forward signals to them."""
        run_dir = self.folder.run(network)
        recipe = run_dir.with_suffix(".yaml")
        recipe.parent.mkdir(parents=True, exist_ok=True)
        recipe.write_text(dump_config(self.machine.config(network)), encoding="utf-8")
        torchrun = ["torch.distributed.run", "--standalone", "--nproc-per-node", str(self.machine.processes)]
        options = ["--recipe", str(recipe), "--out", str(run_dir), "--resume", "auto"]
        self._child = subprocess.Popen([sys.executable, "-m", *torchrun, "-m", "fastadv", "train", *options])
        try:
            code = self._child.wait()
        finally:
            self._child = None
        if self._stopped_by is not None:
            raise KeyboardInterrupt(self._stopped_by)
        if code or not self.folder.is_trained(network):
            raise ProcessesFailed(f"its processes ended with exit code {code}; its run is {run_dir}")

    def _sweep(self, part: Robustness | Transfer | Leaking, attacks: Sequence[str]) -> Sweep:
        name = self.scale.base.data.name
        return Sweep(
            dataset=name,
            images=self._test_images(),
            limit=part.limit,
            attacks=attacks,
            eps=part.eps,
            seed=SEED,
            batch_size=BATCH,
            device=self.machine.device,
            fast=True,
            data=self.scale.base.data,
        )

    def _test_images(self) -> Images:
        if self._images is None:
            self._images = data.load_test(self.scale.base.data.name, self.machine.data, False)
        return self._images

    def _subjects(self, part: Robustness | Transfer | Leaking) -> list[Subject]:
        """The networks, with averaged weights if they have them."""
        subjects = []
        for network in part.networks:
            loaded = checkpoint.load_model(self.folder.run(network), averaged=_uses_averaged_weights(network))
            where = self.machine.data or self.scale.base.data.name
            check_classes(network.name, loaded, self._test_images(), where)
            subjects.append(Subject(network.id, loaded.model, loaded.config.data.pixel_space))
        return subjects


def _uses_averaged_weights(network: Network) -> bool:
    """Whether a network is evaluated with its averaged weights."""
    return network.config.ema_decay is not None


class _Progress:
    """Prints a line for each piece of work: its number, the share that is done, and the time left.

    The estimate is scaled by the ratio of actual to expected time so far.
    """

    def __init__(self, work: dict[str, list[WorkItem]]) -> None:
        pieces = [piece for part in work.values() for piece in part]
        self._count, self._number = len(pieces), 0
        self._total = self._left = sum(piece.seconds for piece in pieces)
        self._expected = self._taken = 0.0

    def announce(self, study: Study, piece: WorkItem) -> None:
        """Call before a piece of work."""
        done = 100 * (1 - self._left / self._total) if self._total else 0
        left = duration(self._left * self._factor)
        line = f"[{self._number + 1}/{self._count}] {done:.0f} %, {left} left  {study.name}: {piece.what}"
        print(line, file=sys.stderr, flush=True)

    def done(self, piece: WorkItem, seconds: float) -> None:
        """Call after a piece of work."""
        self.skip(piece)
        self._expected += piece.seconds
        self._taken += seconds

    def skip(self, piece: WorkItem) -> None:
        """Call for a piece with nothing to do."""
        self._number += 1
        self._left -= piece.seconds

    @property
    def _factor(self) -> float:
        return self._taken / self._expected if self._expected else 1.0
