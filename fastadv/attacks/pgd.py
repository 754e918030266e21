"""Projected gradient descent (Madry et al., 2018): the basic iterative method from a random start."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor
from typing_extensions import Unpack  # which torch requires

from fastadv import ops
from fastadv.attacks.engine.l2_start import uniform_in_l2_ball_
from fastadv.attacks.engine.result_check import NORMS
from fastadv.attacks.engine.step_sizes import Size
from fastadv.attacks.iterative import IterativeAttack
from fastadv.attacks.options import IterativeAttackOptions
from fastadv.utils.validation import check_one_of, check_switches


class PGD(IterativeAttack):
    """Takes steps away from the true class, starting at a uniform random point of the eps ball.

    Args:
        alpha: length of a step in pixel values; None takes 2.5 eps / steps.
        steps: number of iterations; None takes 10.
        random_start: start at a random point; False starts from the clean image.
        norm: that eps bounds and that a step has the length alpha in. ``"linf"`` steps along the gradient's sign;
            ``"l2"`` along the gradient itself, in the ball of perturbations whose L2 norm over the whole image is at
            most eps.
    """

    name = "pgd"
    rule = "label"
    ascend = True
    needs_labels = True

    def __init__(
        self,
        model: Callable[..., Any],
        *,
        random_start: bool = True,
        norm: str = "linf",
        **options: Unpack[IterativeAttackOptions],
    ) -> None:
        check_switches(random_start=random_start)
        check_one_of("norm", norm, tuple(NORMS))
        self.norm = norm
        if norm != "linf":
            self.ball = norm  # before the base checks eps
        self.random_start = self.draws = random_start
        super().__init__(model, **options)

    @property
    def starts_elsewhere(self) -> bool:
        return self.random_start

    def step_sizes(self, size: Size) -> Sequence[float | Tensor]:
        steps = self.steps or 10
        return [2.5 * size.eps / steps if self.alpha is None else self.alpha] * steps

    def start_(self, adv: Tensor, clean: Tensor, eps: float | Tensor, seed: int | Tensor, offset: int) -> None:
        if not self.random_start:
            return
        if self.norm == "l2":
            uniform_in_l2_ball_(adv, clean, eps, seed, offset, self.space)
        else:
            ops.noise_step_(adv, clean, eps, "uniform", seed, offset, self.space)

    def step_(self, adv: Tensor, clean: Tensor, grad: Tensor, alpha: float | Tensor, eps: float | Tensor) -> None:
        if self.norm == "l2":
            ops.normalized_step_(adv, clean, grad, alpha, eps, "l2", self.space)
        else:
            super().step_(adv, clean, grad, alpha, eps)

    def options(self) -> dict[str, Any]:
        return {**super().options(), "random_start": self.random_start, "norm": self.norm}
