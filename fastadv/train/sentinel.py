"""Sentinel: notices when one-step training collapses: accuracy under PGD falls, accuracy under one step does not."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch import distributed as dist

from fastadv import attacks
from fastadv.distributed import ALONE, Processes
from fastadv.pixels import PixelSpace
from fastadv.train.tasks.correct_counts import is_correct
from fastadv.utils.module_modes import isolated

STEPS = 10  # of PGD
IMAGES = 64  # of all processes together
# Rows of a check, forward: PGD's gradients, FGSM's, and both results; an iteration of Algorithm 1 has 1.5 m of them.
ROWS = IMAGES * (STEPS + 1 + 2)


class Check(NamedTuple):
    """Shares of the kept images that were classified correctly."""

    robust: float  # under PGD
    one_step: float  # under FGSM


@dataclass(eq=False)
class Sentinel:
    """Attacks a few training images now and then, by PGD of 10 steps and by FGSM, both at one eps.

    One-step training can lose its robustness to iterative attacks within an epoch, while its own attack succeeds less
    than ever: catastrophic overfitting (Wong et al., 2020, section 5; Andriushchenko and Flammarion, 2020). Test
    accuracy and training loss do not show it.

    Checks draw from a stream of their own and leave the model as it was: a run with a sentinel is the run without one,
    until it acts.

    Args:
        eps: size of both attacks in pixel values.
        space: how the images are normalised.
        fall: by how much accuracy under PGD must fall from its best, as a share of the images, in (0, 1).
        processes: that share the images.

    Attributes:
        best: the check with the best accuracy under PGD; None before the first.
    """

    eps: float
    space: PixelSpace
    fall: float
    processes: Processes = ALONE
    best: Check | None = None
    _kept: list[tuple[Tensor, Tensor]] = field(default_factory=list)  # [n, C, H, W] and [n]

    def keep(self, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Copy the first images [m, C, H, W] and labels [m] of this process's batches."""
        left = -(-IMAGES // self.processes.world_size)
        self._kept = []
        for images, labels in batches:
            taken = min(left, len(images))
            self._kept.append((images[:taken].clone(), labels[:taken].clone()))
            left -= taken
            if left == 0:
                break

    def check(self, model: nn.Module) -> Check:
        """Attack the kept images; all processes at once."""
        options: dict[str, Any] = {"eps": self.eps, "space": self.space, "validate": "never"}
        used = [attacks.PGD(model, steps=STEPS, seed=0, **options), attacks.FGSM(model, **options)]
        counts = torch.zeros(3, dtype=torch.int64, device=self._kept[0][0].device)  # [3]: PGD, FGSM, images
        for images, labels in self._kept:
            for place, attack in enumerate(used):
                counts[place] += _correct(model, attack(images, labels), labels)
            counts[2] += len(images)
        if not self.processes.alone:
            dist.all_reduce(counts)
        robust, one_step, n = counts.tolist()
        return Check(robust / n, one_step / n)

    def has_collapsed(self, check: Check) -> bool:
        """Whether robustness fell while accuracy under one step did not; otherwise the check may become the best."""
        if self.best is None or check.robust >= self.best.robust:
            self.best = check
            return False
        return check.robust < self.best.robust - self.fall and check.one_step > self.best.one_step - self.fall / 2


@torch.no_grad()
def _correct(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:  # [n, C, H, W], [n] -> []
    with isolated(model, bn="eval"):
        return is_correct(model(images), labels).sum()
