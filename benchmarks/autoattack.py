"""Verdicts and times of AutoAttack and its parts, beside those of torchattacks, on a network trained by ``fast_task``.

    python -m benchmarks.autoattack --data DIR --out FILE
    python -m benchmarks.autoattack --data-set digits --limit 500 --images 50 --steps 5 --queries 20 --out FILE

Writes two Markdown tables. The runs of APGD start from torchattacks' own random points. torchattacks' AutoAttack runs
APGD and FAB with 10 steps, rather than the 100 of their authors; ``--steps`` sets both packages'.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torchattacks
from torch import Tensor, nn

from benchmarks.harness import Table
from benchmarks.machine import describe
from fastadv import PixelSpace, attacks, data, models, ops
from fastadv.train import fast_task

SPACE = PixelSpace.unit()
NORMS = {"linf": "Linf", "l2": "L2"}


def main(argv: list[str] | None = None) -> None:
    """Train, compare verdicts and times; write the tables."""
    shared = parser("python -m benchmarks.autoattack", __doc__)
    shared.add_argument("--eps-l2", type=float, default=255, help="L2 radius in pixel values")
    shared.add_argument("--rounds", type=int, default=2, help="in which both packages take turns")
    options = shared.parse_args(argv)
    images = data.load(options.data_set, options.data)
    model = trained(images.train, options)
    x = images.test.images[: options.images].float() / 255  # [N, C, H, W]
    y = images.test.labels[: options.images]  # [N]
    command = shlex.join(["python", "-m", "benchmarks.autoattack", *(sys.argv[1:] if argv is None else argv)])
    clean = float((model(x).argmax(dim=1) == y).float().mean())
    head = (
        f"# AutoAttack beside torchattacks\n\n{describe()}\n\n```bash\n{command}\n```\n\n"
        f"{options.data_set}, {len(x)} test images, small_cnn of width {options.width:g} trained by fast at eps = "
        f"{options.eps:g} on {options.limit:,} images {options.epochs} times; accuracy {100 * clean:.1f} %."
    )
    same = agreement(model, x, y, options)
    options.out.write_text(f"{head}\n\n{same.markdown()}\n")
    whole = whole_attack(model, x, y, options)
    options.out.write_text(f"{head}\n\n{same.markdown()}\n\n{whole.markdown()}\n")


def parser(prog: str, description: str | None) -> argparse.ArgumentParser:
    """The options of a comparison with torchattacks on a network that it trains."""
    shared = argparse.ArgumentParser(prog=prog, description=description)
    shared.add_argument("--data-set", default="fashion_mnist")
    shared.add_argument("--data", metavar="DIR", help="folder of the data set; not needed for digits")
    shared.add_argument("--out", type=Path, required=True, help="where the tables go, in Markdown")
    shared.add_argument("--limit", type=int, default=10_000, help="number of training images, from the first")
    shared.add_argument("--epochs", type=int, default=4)
    shared.add_argument("--images", type=int, default=200, help="number of test images, from the first")
    shared.add_argument("--width", type=float, default=0.5, help="width of small_cnn")
    shared.add_argument("--eps", type=float, default=16, help="Linf radius in pixel values of [0, 255]")
    shared.add_argument("--steps", type=int, default=30, help="of APGD and FAB, in both packages")
    shared.add_argument("--queries", type=int, default=1000, help="of Square, in both packages")
    return shared


def trained(train: data.ImageSet, options: argparse.Namespace) -> nn.Module:
    """A network in evaluation mode."""
    torch.manual_seed(0)
    model = models.create(
        "small_cnn", num_classes=len(train.classes), in_channels=train.images.shape[1], width=options.width
    )
    few = data.ImageSet(train.images[: options.limit], train.labels[: options.limit], train.classes)
    task = fast_task(model, eps=options.eps, space=SPACE, seed=0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.002, weight_decay=0.0)
    loader = data.TensorLoader(few, 128, space=SPACE, seed=0)
    for epoch in range(options.epochs):
        for images, labels in loader.epoch(epoch):
            optimizer.zero_grad()
            task(images, labels).backward()
            optimizer.step()
    return model.eval()


# --- verdicts from the same starts -----------------------------------------------------------------------------------


class _TheirStarts:
    """Starts as torchattacks draws them, for all images of the call at once."""

    def start_(self, adv: Tensor, clean: Tensor, eps: Any, seed: Any, offset: int) -> None:
        drawn = 2 * torch.rand(clean.shape) - 1 if self.norm == "linf" else torch.randn(clean.shape)  # type: ignore[attr-defined]
        ops.normalized_step_(adv, clean, drawn, eps, eps, self.norm, SPACE)  # type: ignore[attr-defined]


class CE(_TheirStarts, attacks.APGDCE):
    """apgd_ce from torchattacks' starts."""


class DLR(_TheirStarts, attacks.APGDDLR):
    """apgd_dlr from torchattacks' starts."""


class OneTarget(_TheirStarts, attacks.APGDT):
    """One of the runs of apgd_t, from torchattacks' starts."""

    rank = 0

    def goals(self, labels: Tensor, logits: Tensor) -> Iterator[Tensor]:
        yield list(super().goals(labels, logits))[self.rank]


def agreement(model: nn.Module, x: Tensor, y: Tensor, options: argparse.Namespace) -> Table:
    """APGD's verdicts, image by image."""
    table = Table(
        f"The same starts, {options.steps} steps",
        [
            "attack",
            "norm",
            "eps",
            "correct, fastadv",
            "correct, torchattacks",
            "equal verdicts",
            "s",
            "s, torchattacks",
        ],
    )
    for norm, eps in (("linf", options.eps), ("l2", options.eps_l2)):
        own: dict[str, Any] = {"eps": eps, "norm": norm, "steps": options.steps, "space": SPACE, "seed": 0}
        theirs: dict[str, Any] = {"eps": eps / 255, "norm": NORMS[norm], "steps": options.steps}
        for name, ours, peer in (
            ("apgd_ce", CE(model, **own), torchattacks.APGD(model, loss="ce", **theirs)),
            ("apgd_dlr", DLR(model, **own), torchattacks.APGD(model, loss="dlr", **theirs)),
            ("apgd_t", OneTarget(model, **own), torchattacks.APGDT(model, n_classes=10, **theirs)),
        ):
            ranks = range(9 if isinstance(ours, OneTarget) else 1)
            begin = time.process_time()
            left = stays_correct(model, ours, x, y, ranks)
            between = time.process_time()
            correct = model(peer(x, y)).argmax(dim=1) == y  # [N]
            seconds = [f"{between - begin:.1f}", f"{time.process_time() - between:.1f}"]
            counts = [str(int(verdicts.sum())) for verdicts in (left, correct)]
            same = f"{int((left == correct).sum())} of {len(y)}"
            table.rows.append([name, norm, f"{eps:g}", *counts, same, *seconds])
            print(table.rows[-1], file=sys.stderr)
    return table


def stays_correct(model: nn.Module, ours: attacks.AdaptivePGD, x: Tensor, y: Tensor, ranks: range) -> Tensor:
    """Which images [N] the attack leaves correct; each run draws for those that are left, as torchattacks does."""
    left = model(x).argmax(dim=1) == y
    torch.manual_seed(0)
    for rank in ranks:
        if isinstance(ours, OneTarget):
            ours.rank = rank
        place = left.nonzero()[:, 0]
        left[place] = model(ours(x[place], y[place])).argmax(dim=1) == y[place]
    return left


# --- the whole of it -------------------------------------------------------------------------------------------------


def whole_attack(model: nn.Module, x: Tensor, y: Tensor, options: argparse.Namespace) -> Table:
    """Standard AutoAttack, both packages in turns, process time."""
    table = Table(
        f"AutoAttack, standard, {options.steps} steps, {options.queries:,} queries",
        [
            *("norm", "eps", "", "correct", "verdicts unlike torchattacks'", "s", "of torchattacks' time"),
            *("rows with a gradient", "rows without"),
        ],
    )
    for norm, eps in (("linf", options.eps), ("l2", options.eps_l2)):
        counted = Counted(model).eval()  # torchattacks puts the model back into the mode that it finds
        own = {"eps": eps, "norm": norm, "steps": options.steps, "queries": options.queries, "space": SPACE, "seed": 0}
        peer = torchattacks.AutoAttack(counted, eps=eps / 255, norm=NORMS[norm], n_classes=len(y.unique()), seed=0)
        for part in peer._autoattack.attacks:
            part.steps, part.n_queries = options.steps, options.queries
        variants: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
            "torchattacks": peer,
            "fastadv": attacks.AutoAttack(counted, **own),
            "fastadv, fast=True": attacks.AutoAttack(counted, fast=True, **own),
        }
        runs = [
            {name: timed(attack, counted, x, y) for name, attack in variants.items()} for _ in range(options.rounds)
        ]
        best = {name: min((run[name] for run in runs), key=lambda run: run.seconds) for name in variants}
        reference = best["torchattacks"]
        for name, run in best.items():
            unlike = str(int((run.correct != reference.correct).sum()))
            times = [f"{run.seconds:.1f}", f"{run.seconds / reference.seconds:.2f}"]
            rows = [f"{run.gradients:,}", f"{run.forwards:,}"]
            table.rows.append([norm, f"{eps:g}", name, str(int(run.correct.sum())), unlike, *times, *rows])
            print(table.rows[-1], file=sys.stderr)
    return table


@dataclass(frozen=True)
class Run:
    """What one run found and took: verdicts [N], process time, and the rows of its passes with and without a graph."""

    correct: Tensor
    seconds: float
    gradients: int
    forwards: int


def timed(attack: Callable[[Tensor, Tensor], Tensor], counted: Counted, x: Tensor, y: Tensor) -> Run:
    """Run an attack once."""
    counted.rows = {True: 0, False: 0}
    begin = time.process_time()
    adv = attack(x, y)
    seconds = time.process_time() - begin
    rows = dict(counted.rows)
    with torch.no_grad():
        correct = counted(adv).argmax(dim=1) == y  # [N]
    return Run(correct, seconds, rows[True], rows[False])


class Counted(nn.Module):
    """Counts the images that a model classifies, by whether they require grad."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.rows = {True: 0, False: 0}

    def forward(self, images: Tensor) -> Tensor:  # [N, C, H, W] -> [N, K]
        self.rows[images.requires_grad] += len(images)
        logits: Tensor = self.model(images)
        return logits


if __name__ == "__main__":
    main()
