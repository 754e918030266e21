"""Counts communication in a training iteration, and times iterations with and without it.

    python -m benchmarks.scaling
    torchrun --nproc-per-node=2 -m benchmarks.scaling

Prints Markdown. The images are random; nothing is loaded or saved.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import distributed as dist

from benchmarks.collectives import Collectives
from benchmarks.harness import Table
from benchmarks.machine import describe
from benchmarks.trainers import CLASSES, random_trainer, step
from fastadv import models
from fastadv.distributed import Processes, device_name, process_group
from fastadv.train import AttackConfig, TrainConfig, Trainer
from fastadv.utils import devices

METRICS = 5  # numbers, in float64


def main() -> None:
    """Count and time; print on the main process."""
    options = _parser().parse_args()
    with process_group() as processes:
        table = Table("An iteration", ["", "", ""])
        trainer, unsynchronised = build(options, processes)
        table.rows += counted(trainer, options, processes)
        table.rows += timed(trainer, unsynchronised, options, processes)
        if processes.main:
            print(describe(), table.markdown(), sep="\n\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__)
    parser.add_argument("--model", default="small_cnn")
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--size", type=int, default=32, help="height and width of the images")
    parser.add_argument("--minibatch", dest="m", type=int, default=32)
    parser.add_argument("--k", type=int, default=16)
    parser.add_argument("--accumulate", type=int, default=1)
    parser.add_argument("--steps", type=int, default=30, help="iterations timed, after five others")
    parser.add_argument("--device", default="auto")
    return parser


def build(
    options: argparse.Namespace, processes: Processes
) -> tuple[Trainer, Callable[[], AbstractContextManager[None]]]:
    """A trainer on random images, and a context that skips the exchange of gradients."""
    device = devices.resolve(device_name(options.device, processes))
    torch.manual_seed(0)
    model = models.create(options.model, num_classes=CLASSES, width=options.width)
    config = TrainConfig(m=options.m, accumulate=options.accumulate, attack=AttackConfig(k=options.k))
    return random_trainer(model, config, size=options.size, device=device, processes=processes)


# --- counted ---------------------------------------------------------------------------------------------------------


def counted(trainer: Trainer, options: argparse.Namespace, processes: Processes) -> list[list[str]]:
    """Rows with the communication of generation and of an iteration."""
    for _ in range(5):  # DDP rearranges its buckets after the first
        step(trainer)
    images, _ = next(iter(trainer.train_loader.epoch(0)))
    with Collectives() as generation:
        trainer.task.attack.perturb_(images[: options.k])  # type: ignore[attr-defined]
    with Collectives() as iteration:
        step(trainer)
    numbers = sum(parameter.numel() for parameter in trainer.model.parameters())
    return [
        ["network", f"{options.model}, {numbers:,} parameters", f"{4 * numbers:,} bytes of gradients"],
        ["generation", *_collectives(generation.counts)],
        ["iteration", *_collectives(iteration.counts)],
    ]


def _collectives(counts: Counter[tuple[str, int]]) -> list[str]:
    """Number of collectives and their bytes; the metrics are float64, gradients are float32."""
    size = sum(n * numbers * (8 if numbers == METRICS else 4) for (_, numbers), n in counts.items())
    kinds = Counter[str]()
    for (name, _), n in counts.items():
        kinds[name.partition(":")[2]] += n
    names = ", ".join(f"{n} {kind}" for kind, n in kinds.items())
    return [names or "no collective", f"{size:,} bytes"]


# --- timed -----------------------------------------------------------------------------------------------------------


def timed(
    trainer: Trainer,
    local: Callable[[], AbstractContextManager[None]],
    options: argparse.Namespace,
    processes: Processes,
) -> list[list[str]]:
    """Rows with the time of an iteration, with and without the exchange of gradients, measured in turns."""
    seconds: dict[str, list[float]] = {"iteration": [], "without the exchange of gradients": []}
    for _ in range(options.steps):
        for name, context in zip(seconds, (nullcontext, local), strict=True):
            if not processes.alone:
                dist.barrier()  # a process that is late in one iteration must not delay the next
            start = time.perf_counter()
            with context():
                step(trainer)
            if trainer.device.type == "cuda":
                torch.cuda.synchronize()
            seconds[name].append(time.perf_counter() - start)
    rows = []
    for name, values in seconds.items():
        low, median, high = statistics.quantiles(values, n=4)
        images = options.m * options.accumulate * processes.world_size / median
        rows.append([name, f"{1e3 * median:.1f} ms ({1e3 * low:.1f}-{1e3 * high:.1f})", f"{images:,.0f} images/s"])
    if not processes.alone:
        numbers = sum(parameter.numel() for parameter in trainer.model.parameters())
        for what, size in (("all-reduce of the metrics", METRICS), ("all-reduce of the gradients, alone", numbers)):
            took = _all_reduce_seconds(size, trainer.device)
            rows.append([what, f"{1e3 * took:.2f} ms", f"{4 * size / took / 1e6:,.0f} MB/s"])
    return rows


def _all_reduce_seconds(numbers: int, device: torch.device) -> float:
    values, seconds = torch.zeros(numbers, device=device), []
    for _ in range(20):
        dist.barrier()
        start = time.perf_counter()
        dist.all_reduce(values)
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


if __name__ == "__main__":
    main()
