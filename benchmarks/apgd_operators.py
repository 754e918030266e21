"""The operators of APGD against the same in plain PyTorch, as torchattacks 3.5 writes it.

    python -m benchmarks.apgd_operators --out FILE

One CPU thread, process time; all variants take turns. Writes Markdown tables.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.harness import Interleaved, Table, Work
from benchmarks.machine import describe
from benchmarks.pairs import process_seconds
from fastadv import PixelSpace, ops

SPACE = PixelSpace.unit()
EPS = {"linf": 8.0, "l2": 128.0}  # pixel values
SHAPES = {"32 x 3 x 224 x 224": (32, 3, 224, 224), "128 x 3 x 32 x 32": (128, 3, 32, 32)}
CLASSES = (10, 100, 1000)
ROWS = 128  # of logits


def main(argv: list[str] | None = None) -> None:
    """Time everything and write the tables."""
    options = _parser().parse_args(argv)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    steps = Table(
        "A step and the best iterate, float32",
        ["images", "work", "variant", "ms", "over fused"],
        rows=[
            [name, what, *row]
            for name, shape in SHAPES.items()
            for what, works in step_works(shape).items()
            for row in timed(works, options.rounds)
        ],
        notes=["Median and quartiles; over fused: ratio in the same round. Half of the images are better."],
    )
    losses = Table(
        f"The loss of each row and its derivative by the logits, {ROWS} rows, float32",
        ["classes", "loss", "variant", "ms", "over fused"],
        rows=[
            [str(k), what, *row]
            for k in CLASSES
            for what, works in loss_works(k).items()
            for row in timed(works, 10 * options.rounds)
        ],
    )
    command = shlex.join(["python", "-m", "benchmarks.apgd_operators", *(sys.argv[1:] if argv is None else argv)])
    head = f"# The operators of APGD\n\n{describe()}\n\n```bash\n{command}\n```"
    options.out.write_text(f"{head}\n\n{steps.markdown()}\n\n{losses.markdown()}\n")


def timed(works: dict[str, Work], rounds: int) -> list[list[str]]:
    """A row for each variant, timed in turns."""
    interleaved = Interleaved(works, clock=process_seconds)
    for _ in range(rounds):
        interleaved.round()
    timings = interleaved.timings()
    return [[name, timings[name].text, interleaved.ratio(name, "fused").text] for name in works]


# --- steps -----------------------------------------------------------------------------------------------------------


def step_works(shape: tuple[int, ...]) -> dict[str, dict[str, Work]]:
    """Variants of each work on images [N, C, H, W] in [0, 1]."""
    clean = torch.rand(shape)
    adv, previous = ((clean + 0.03 * (2 * torch.rand(shape) - 1)).clamp(0, 1) for _ in range(2))
    grad, best, best_grad = torch.randn(shape), clean.clone(), torch.zeros(shape)
    better = torch.arange(shape[0]) % 2 == 0  # [N]
    alpha = {norm: torch.full(shape[:1], 2 * eps) for norm, eps in EPS.items()}  # [N]

    def fused(norm: str) -> Work:
        return lambda: ops.apgd_step_(adv, previous, clean, grad, alpha[norm], EPS[norm], SPACE, norm=norm)

    def plain(norm: str) -> Work:
        step = {"linf": linf_as_torchattacks, "l2": l2_as_torchattacks}[norm]
        size = alpha[norm].view(-1, 1, 1, 1) / 255
        return lambda: step(adv, previous, clean, grad, size, EPS[norm] / 255)

    def best_as_torchattacks() -> None:
        rows = better.nonzero().squeeze()
        best[rows] = adv[rows].clone()
        best_grad[rows] = grad[rows].clone()

    return {
        **{
            f"step, {name}": {"fused": fused(norm), "as torchattacks": plain(norm)}
            for name, norm in (("Linf", "linf"), ("L2", "l2"))
        },
        "best iterate and its gradient": {
            "fused": lambda: ops.keep_best_(best, best_grad, adv, grad, better),
            "as torchattacks": best_as_torchattacks,
        },
    }


def linf_as_torchattacks(
    adv: Tensor, previous: Tensor, clean: Tensor, grad: Tensor, size: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """The step's full-size operators; previous is a copy of adv."""
    moved, kept = adv - previous, adv.clone()

    def project(x: Tensor) -> Tensor:
        return torch.clamp(torch.min(torch.max(x, clean - eps), clean + eps), 0.0, 1.0)

    z = project(adv + size * torch.sign(grad))
    return project(adv + (z - adv) * 0.75 + moved * 0.25) + 0.0, kept


def l2_as_torchattacks(
    adv: Tensor, previous: Tensor, clean: Tensor, grad: Tensor, size: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """The same in the L2 ball."""
    moved, kept = adv - previous, adv.clone()

    def length(x: Tensor) -> Tensor:
        return (x**2).sum(dim=(1, 2, 3), keepdim=True).sqrt()

    def project(x: Tensor) -> Tensor:
        most = torch.min(eps * torch.ones(clean.shape), length(x - clean))
        return torch.clamp(clean + (x - clean) / (length(x - clean) + 1e-12) * most, 0.0, 1.0)

    z = project(adv + size * grad / (length(grad) + 1e-12))
    return project(adv + (z - adv) * 0.75 + moved * 0.25) + 0.0, kept


# --- losses ----------------------------------------------------------------------------------------------------------


def dlr_as_torchattacks(logits: Tensor, labels: Tensor) -> Tensor:  # [N, K], [N] -> [N]
    """The DLR loss from a sorted row."""
    ordered, order = logits.sort(dim=1)
    right = (order[:, -1] == labels).float()
    other = ordered[:, -2] * right + ordered[:, -1] * (1.0 - right)
    of_label = logits[torch.arange(len(logits), device=logits.device), labels]
    return -(of_label - other) / (ordered[:, -1] - ordered[:, -3] + 1e-12)


def loss_works(classes: int) -> dict[str, dict[str, Work]]:
    """Variants of each loss on logits [ROWS, classes]."""
    logits, labels = 4 * torch.randn(ROWS, classes), torch.randint(classes, (ROWS,))

    def fused(loss: str, rule: str) -> Work:
        return lambda: (ops.row_losses(logits, labels, loss), ops.scaled_target_grad(logits, rule, labels))

    def by_autograd(dlr: bool) -> Work:
        def run() -> None:
            leaf = logits.detach().requires_grad_()
            losses = (
                dlr_as_torchattacks(leaf, labels)
                if dlr
                else torch.nn.functional.cross_entropy(leaf, labels, reduction="none")
            )
            torch.autograd.grad(losses.sum(), leaf)

        return run

    return {
        "DLR": {"fused": fused("dlr", "dlr"), "as torchattacks": by_autograd(dlr=True)},
        "cross-entropy": {"fused": fused("log_odds", "label"), "as torchattacks": by_autograd(dlr=False)},
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.apgd_operators", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the tables, in Markdown")
    parser.add_argument("--rounds", type=int, default=15)
    return parser


if __name__ == "__main__":
    main()
