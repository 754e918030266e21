"""One step along the gradient, normalised per example: "fast grad. L2" and "fast grad. Linf" (appendix A)."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from fastadv import ops
from fastadv.attacks.one_step import OneStepAttack


class _FastGrad(OneStepAttack):
    rule = "label"
    ascend = True
    needs_labels = True
    norm: ClassVar[str]

    def step_(self, adv: Tensor, clean: Tensor, grad: Tensor, alpha: float | Tensor, eps: float | Tensor) -> None:
        ops.normalized_step_(adv, clean, grad, alpha, eps, self.norm, self.space)


class FastGradL2(_FastGrad):
    """X + eps * g / ||g||_2: the perturbation has an L2 norm of eps pixel values (Miyato et al., 2016)."""

    name = "fast_grad_l2"
    norm = ball = "l2"


class FastGradLinf(_FastGrad):
    """X + eps * g / ||g||_inf: the largest change of a pixel is eps."""

    name = "fast_grad_linf"
    norm = "linf"
