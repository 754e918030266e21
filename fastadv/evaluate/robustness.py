"""How many images a model classifies correctly, clean or under an attack."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fastadv import attacks
from fastadv.attacks.isolation import isolated
from fastadv.evaluate.records import CLEAN
from fastadv.pixels import PixelSpace

FEWEST_CLASSES_FOR_TOP5 = 6  # with five or fewer, every image is among the five likeliest


@dataclass(frozen=True)
class Counts:
    """How many of ``n`` images were classified correctly; ``top5`` is None with fewer than six classes."""

    n: int
    top1: int
    top5: int | None


def evaluate(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    attack: str | type[attacks.Attack] = CLEAN,
    eps: float | None = None,
    space: PixelSpace,
    seed: int = 0,
    device: torch.device | str | None = None,
    **options: Any,
) -> Counts:
    """Count the images that a model classifies correctly, each attacked with the model itself.

    Works with any module and any source of batches; the model is in eval mode meanwhile, and afterwards each of its
    modules is in the mode it was in::

        from fastadv import PixelSpace
        from fastadv.evaluate import evaluate, proportion

        counts = evaluate(model, test_loader, attack="step_ll", eps=16, space=PixelSpace.imagenet(), device="cuda")
        print("top 1:", proportion(counts.top1, counts.n))

    Args:
        model: gives logits [m, K].
        batches: (images [m, C, H, W] in ``space``, labels [m] int64), each image once; read once.
        attack: one of ``fastadv.attacks.names()``, a class of one's own, or "clean" for none.
        eps: size of the perturbation in pixel values; none for "clean".
        space: the PixelSpace of the model's input.
        seed: seed of the attack's random numbers: the same counts each time, however the images are batched.
        device: where batches are moved, the model's device; None leaves them where they are.
        options: further options of the attack, as for ``fastadv.attacks.create``.

    Raises:
        ValueError: an unknown attack, an attack without eps, eps or options for "clean", images outside ``space``, no
            images, or logits that do not fit the labels.
        TypeError: an attack that is neither a name nor a class.
    """
    if attack == CLEAN and (eps or options):
        raise ValueError(f"clean images take no eps and no options, got eps={eps} and {options}")
    if attack != CLEAN and eps is None:
        raise ValueError(f"{attack} needs eps, in pixel values")
    perturb = None if attack == CLEAN else attacks.create(attack, model, eps=eps, space=space, seed=seed, **options)
    with isolated(model, bn="eval"):
        n = top1 = top5 = classes = 0
        for images, labels in batches:
            images, labels = images.to(device), labels.to(device)  # [m, C, H, W], [m]
            space.check(images)
            if perturb is not None:
                images = perturb(images, labels)
            with torch.no_grad():
                logits = model(images)  # [m, K]
            _check_logits(logits, labels)
            first, five = _hits(logits, labels)
            n, top1, top5, classes = n + len(labels), top1 + first, top5 + five, logits.shape[1]
    if n == 0:
        raise ValueError("there are no images to evaluate")
    return Counts(n, top1, top5 if classes >= FEWEST_CLASSES_FOR_TOP5 else None)


def _hits(logits: Tensor, labels: Tensor) -> tuple[int, int]:  # [m, K], [m]
    """How many labels are the likeliest class, and among the five likeliest; of equal logits the first comes first.

    A row with a NaN is no prediction, so it is wrong; sorting alone would call NaN the largest.
    """
    likeliest = logits.argsort(dim=1, descending=True, stable=True)[:, :5]  # [m, 5 or K]
    hits = (likeliest == labels[:, None]) & ~logits.isnan().any(dim=1, keepdim=True)  # [m, 5 or K]
    return int(hits[:, :1].sum()), int(hits.sum())


def _check_logits(logits: Any, labels: Tensor) -> None:
    if not isinstance(logits, Tensor) or logits.dim() != 2 or len(logits) != len(labels):
        got = list(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ValueError(f"the model must give logits [{len(labels)}, K] for {len(labels)} images, got {got}")
    if len(labels) and not 0 <= labels.min() <= labels.max() < logits.shape[1]:
        raise ValueError(
            f"labels must lie in 0..{logits.shape[1] - 1}, one of the model's {logits.shape[1]} classes; "
            f"got {labels.min()}..{labels.max()}"
        )
