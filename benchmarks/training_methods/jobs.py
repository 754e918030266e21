"""Networks to be trained and attacked, each in a job of its own, with its files in the work folder."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import re
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from benchmarks.training_methods.bench import Bench
from benchmarks.training_methods.robustness import counted
from benchmarks.training_methods.ways import SOURCES, STANDARD, Method, methods
from fastadv.train import Replayed

# What trained networks depend on, and the times.
_SETTING = ("data_set", "limit", "test_limit", "epochs", "replays", "m", "eps", "width", "lr", "device")


class Job(NamedTuple):
    """A network: a way of training and its seed, which is also that of its initial weights and of the images' order."""

    way: str
    seed: int
    attacked: bool = True

    def file(self, work: Path, suffix: str) -> Path:
        """A file of this job in the work folder."""
        return work / f"{re.sub(r'[^a-z0-9]+', '-', self.way.lower())}-{self.seed}.{suffix}"


def check_setting(options: argparse.Namespace, work: Path) -> None:
    """Create the work folder, or stop if it holds networks of other options."""
    setting = {name: getattr(options, name) for name in _SETTING}
    kept = work / "setting.json"
    work.mkdir(parents=True, exist_ok=True)
    if kept.exists() and (before := json.loads(kept.read_text())) != setting:
        changed = ", ".join(f"{name} {before[name]}" for name in setting if before[name] != setting[name])
        sys.exit(f"{work} is the work of a run with other options ({changed}): choose another --work")
    kept.write_text(json.dumps(setting))


def jobs_of(options: argparse.Namespace) -> list[list[Job]]:
    """The jobs in two stages: networks of standard training, which are also the static sources, and all others."""
    seeds = range(options.seed, options.seed + options.seeds)
    sources = range(seeds.stop, seeds.stop + SOURCES)
    standard = [*(Job(STANDARD, seed) for seed in seeds), *(Job(STANDARD, seed, attacked=False) for seed in sources)]
    return [standard, [Job(name, seed) for seed in seeds for name in methods(options, seed) if name != STANDARD]]


def run(options: argparse.Namespace, work: Path) -> Iterator[Job]:
    """Do the jobs in several processes, as far as they are not done; yields each when it is."""
    start = time.perf_counter()
    for stage in jobs_of(options):
        for number, job in enumerate(_done(options, work, stage), 1):
            minutes = (time.perf_counter() - start) / 60
            print(f"{minutes:.1f} min: {job.way}, seed {job.seed} ({number} of {len(stage)})", file=sys.stderr)
            yield job


def _done(options: argparse.Namespace, work: Path, jobs: Sequence[Job]) -> Iterator[Job]:
    if options.processes == 1:
        yield from (do(options, work, job) for job in jobs)
        return
    spawn = multiprocessing.get_context("spawn")  # a fork would share the threads' state of PyTorch
    with ProcessPoolExecutor(options.processes, spawn, torch.set_num_threads, (1,)) as pool:
        for future in as_completed([pool.submit(do, options, work, job) for job in jobs]):
            yield future.result()


def do(options: argparse.Namespace, work: Path, job: Job) -> Job:
    """Train a network unless its weights are kept, then run the attacks whose results are not."""
    bench = _bench(tuple(vars(options).items()))
    kept = job.file(work, "pt")
    if kept.exists():
        model = _load(bench, kept)
    else:
        others = [Job(STANDARD, job.seed + number).file(work, "pt") for number in range(1, SOURCES + 1)]
        sources = [_load(bench, other) for other in others] if job.way != STANDARD else ()
        model = train(bench, methods(options, job.seed, sources)[job.way], job.seed)
        partial = kept.with_suffix(".partial")
        torch.save(model.state_dict(), partial)
        partial.rename(kept)
    if job.attacked:
        counted(bench, model, job.file(work, "json"))
    return job


@cache
def _bench(options: tuple[tuple[str, object], ...]) -> Bench:
    """Read the images once in each process."""
    return Bench.of(argparse.Namespace(**dict(options)))


def _load(bench: Bench, kept: Path) -> nn.Module:
    model = bench.network(0)
    model.load_state_dict(torch.load(kept, map_location=bench.device, weights_only=True))
    return model


def train(bench: Bench, way: Method, seed: int) -> nn.Module:
    """Train a network on each example ``--epochs`` times."""
    model = bench.network(seed)
    task, optimizer = way.task(model), bench.optimizer(model)
    loader = Replayed(bench.loader(way, seed), way.replays)
    passes = bench.options.epochs // way.passes
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, passes * len(loader))
    for epoch in range(passes):
        for images, labels in loader.epoch(epoch):
            way.step(task, optimizer, images, labels)
            schedule.step()
    return model
