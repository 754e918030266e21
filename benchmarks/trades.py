"""TRADES: its loss against PyTorch's, and an iteration against the method written out.

    python -m benchmarks.trades --out FILE

One CPU thread, process time; all variants take turns. Writes Markdown tables.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.harness import Interleaved, Table, Work
from benchmarks.machine import describe
from benchmarks.pairs import process_seconds
from fastadv import PixelSpace, models, ops
from fastadv.train import TradesTask

SPACE = PixelSpace.unit()
BETA, EPS, ALPHA, STEPS = 6.0, 8.0, 2.0, 10
ROWS = 128  # of logits
NETWORKS = {"small_cnn": (1, 28, 10), "torchvision/resnet18": (3, 32, 10)}  # channels, pixels, classes


def main(argv: list[str] | None = None) -> None:
    """Time both and write the tables."""
    options = _parser().parse_args(argv)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    losses = Table(
        f"The loss and its two derivatives, {ROWS} rows, float32",
        ["classes", "variant", "ms", "over fused"],
        rows=[[str(k), *row] for k in (10, 100, 1000) for row in timed(loss_variants(k), "fused", 10 * options.rounds)],
        notes=["Median and quartiles; over fused: ratio in the same round."],
    )
    iterations = Table(
        f"An iteration of {options.m} images, {STEPS} steps",
        ["network", "variant", "ms", "over clean"],
        rows=[
            [name, *row]
            for name in options.networks
            for row in timed(iterations_of(name, options.m), "clean", options.rounds)
        ],
        notes=[
            "Median and quartiles; over clean: ratio to standard training on the same images in the same round. The "
            "authors' loop runs the clean images through the network in every step, and twice in the training pass; "
            "the other one runs them once for all steps, and once in the training pass, as TradesTask does. SGD with "
            "momentum."
        ],
    )
    command = shlex.join(["python", "-m", "benchmarks.trades", *(sys.argv[1:] if argv is None else argv)])
    head = f"# TRADES: cost of its loss and of an iteration\n\n{describe()}\n\n```bash\n{command}\n```"
    options.out.write_text(f"{head}\n\n{losses.markdown()}\n\n{iterations.markdown()}\n")


def timed(works: dict[str, Work], base: str, rounds: int) -> list[list[str]]:
    """A row for each variant, timed in turns."""
    interleaved = Interleaved(works, clock=process_seconds)
    for _ in range(rounds):
        interleaved.round()
    timings = interleaved.timings()
    return [[name, timings[name].text, interleaved.ratio(name, base).text] for name in works]


# --- the loss --------------------------------------------------------------------------------------------------------


def plain_loss(logits: Tensor, adv_logits: Tensor, labels: Tensor) -> Tensor:  # [m, K], [m, K], [m] -> scalar
    """The loss in plain PyTorch."""
    divergence = functional.kl_div(adv_logits.log_softmax(1), logits.softmax(1), reduction="batchmean")
    return functional.cross_entropy(logits, labels) + BETA * divergence


def loss_variants(classes: int) -> dict[str, Work]:
    """Forward and backward passes from two leaves [ROWS, classes]."""
    clean = 4 * torch.randn(ROWS, classes)
    values, labels = (clean, clean + torch.randn(ROWS, classes)), torch.randint(classes, (ROWS,))

    def of(loss: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Work:
        def run() -> None:
            leaves = [each.detach().requires_grad_() for each in values]
            torch.autograd.grad(loss(*leaves, labels), leaves)

        return run

    return {
        "fused": of(lambda z, adv, y: ops.trades_loss(z, adv, y, BETA)),
        "F.cross_entropy, F.kl_div": of(plain_loss),
    }


# --- an iteration ----------------------------------------------------------------------------------------------------


def written_out(model: nn.Module, images: Tensor, labels: Tensor, *, clean_once: bool) -> Tensor:
    """The loss of images [m, C, H, W] in [0, 1], by the method written out."""
    model.eval()
    x = images + 0.001 * torch.randn_like(images)  # [m, C, H, W]
    with torch.no_grad():
        p = model(images).softmax(1) if clean_once else None  # [m, K]
    for _ in range(STEPS):
        x = x.detach().requires_grad_()
        log_q = model(x).log_softmax(1)
        loss = functional.kl_div(log_q, model(images).softmax(1) if p is None else p, reduction="sum")
        (grad,) = torch.autograd.grad(loss, x)
        x = x.detach() + ALPHA / 255 * grad.sign()
        x = torch.min(torch.max(x, images - EPS / 255), images + EPS / 255).clamp(0, 1)
    model.train()
    logits, adv_logits = model(images), model(x)
    if clean_once:
        return plain_loss(logits, adv_logits, labels)
    divergence = functional.kl_div(adv_logits.log_softmax(1), model(images).softmax(1), reduction="batchmean")
    return functional.cross_entropy(logits, labels) + BETA * divergence


def iterations_of(network: str, m: int) -> dict[str, Work]:
    """Kinds of iterations on one network; standard training first."""
    channels, size, classes = NETWORKS[network]
    model = models.create(network, num_classes=classes, in_channels=channels).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, foreach=True)
    images, labels = torch.rand(m, channels, size, size), torch.randint(classes, (m,))

    def iteration(loss: Callable[[Tensor, Tensor], Tensor]) -> Work:
        def run() -> None:
            optimizer.zero_grad()
            loss(images, labels).backward()
            optimizer.step()

        return run

    def task(**more: Any) -> Work:
        options = {"validate": "first", **more}
        made = TradesTask(model, beta=BETA, eps=EPS, alpha=ALPHA, steps=STEPS, space=SPACE, attack_options=options)
        return iteration(made)

    return {
        "clean": iteration(lambda x, y: functional.cross_entropy(model(x), y)),
        "TradesTask": task(),
        "TradesTask, fast=True": task(fast=True),
        "written out, as the authors' loop": iteration(lambda x, y: written_out(model, x, y, clean_once=False)),
        "written out, clean prediction once": iteration(lambda x, y: written_out(model, x, y, clean_once=True)),
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.trades", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the tables, in Markdown")
    parser.add_argument("--m", type=int, default=64)
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=list(NETWORKS))
    parser.add_argument("--rounds", type=int, default=9)
    return parser


if __name__ == "__main__":
    main()
