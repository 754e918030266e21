"""An iteration of PairedTask over the fastest clean iteration of as many examples.

    python -m benchmarks.pairs --out FILE

ResNet-50, one CPU thread, process time; all kinds of iterations take turns. Writes a Markdown table.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from benchmarks.harness import Interleaved, Table, Work
from benchmarks.machine import describe
from fastadv import PixelSpace, models
from fastadv.train import AdversarialTask, PairedTask

SPACE = PixelSpace.unit()
CLASSES = 100
OPTIONS: dict[str, Any] = {"eps": 8, "space": SPACE}
FIRST = {"validate": "first"}


def main(argv: list[str] | None = None) -> None:
    """Time the iterations and write the table."""
    options = _parser().parse_args(argv)
    torch.set_num_threads(1)
    rows = [row for m in options.m for row in measure(m, options.network, options.size, options.rounds)]
    table = Table(
        f"{options.network}, {options.size} px, {options.rounds} rounds",
        ["m", "iteration", "ms", "over clean", "by pass count"],
        notes=[
            "Median and quartiles; over clean: ratio to a clean iteration of m images in the same round. Pairs have "
            "m / 2 images in two versions, Algorithm 1 m images, half of them adversarial. Weights and images in "
            "channels_last, the fastest layout of a clean iteration on a CPU; SGD with momentum."
        ],
        rows=rows,
    )
    command = shlex.join(["python", "-m", "benchmarks.pairs", *(sys.argv[1:] if argv is None else argv)])
    head = f"# Paired training: cost of an iteration\n\n{describe()}\n\n```bash\n{command}\n```"
    options.out.write_text(f"{head}\n\n{table.markdown()}\n")


def measure(m: int, network: str, size: int, rounds: int) -> list[list[str]]:
    """The rows for minibatches of m examples."""
    works = iterations(m, network, size)
    interleaved = Interleaved({name: work for name, (work, _) in works.items()}, clock=process_seconds)
    for _ in range(rounds):
        interleaved.round()
    timings, clean = interleaved.timings(), next(iter(works))
    return [
        [str(m), name, timings[name].text, interleaved.ratio(name, clean).text, floor]
        for name, (_, floor) in works.items()
    ]


def iterations(m: int, network: str, size: int) -> dict[str, tuple[Work, str]]:
    """Kinds of iterations on one network, each with its cost by pass count; the clean one first."""
    torch.manual_seed(0)
    model = models.create(network, num_classes=CLASSES, in_channels=3).train().to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, foreach=True)
    images = torch.rand(m, 3, size, size).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(CLASSES, (m,))

    def iteration(passes: Callable[[Tensor, Tensor], object], count: int) -> Work:
        def run() -> None:
            optimizer.zero_grad()
            passes(images[:count].clone(), labels[:count])
            optimizer.step()

        return run

    def paired(attack: str) -> Work:
        return iteration(PairedTask(model, attack=attack, attack_options=FIRST, **OPTIONS).backward, m // 2)

    def algorithm_1(attack: str) -> Work:
        task = AdversarialTask(model, attack=attack, k=m // 2, attack_options={**FIRST, "fast": True}, **OPTIONS)
        return iteration(lambda x, y: task(x, y).backward(), m)

    return {
        "clean": (iteration(clean_passes(model), m), "1"),
        "pairs, fgsm": (paired("fgsm"), "1"),
        "pairs, step_ll": (paired("step_ll"), "1.17"),
        "Algorithm 1, fgsm, fast=True": (algorithm_1("fgsm"), "1.33"),
        "Algorithm 1, step_ll, fast=True": (algorithm_1("step_ll"), "1.33"),
    }


def clean_passes(model: nn.Module) -> Callable[[Tensor, Tensor], object]:
    """Standard training's passes, in plain PyTorch."""
    return lambda images, labels: cross_entropy(model(images), labels).backward()


def process_seconds(function: Work, calls: int) -> float:
    """CPU time of this process, which other processes on the machine hardly change."""
    start = time.process_time()
    for _ in range(calls):
        function()
    return time.process_time() - start


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pairs", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the table, in Markdown")
    parser.add_argument("--m", type=int, nargs="+", default=[16, 32])
    parser.add_argument("--network", default="torchvision/resnet50")
    parser.add_argument("--size", type=int, default=112, help="pixels")
    parser.add_argument("--rounds", type=int, default=9)
    return parser


if __name__ == "__main__":
    main()
