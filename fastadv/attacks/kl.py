"""KLAttack: the inner maximisation of TRADES."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor
from typing_extensions import Unpack  # which torch requires

from fastadv import ops
from fastadv.attacks.engine.step_sizes import Size
from fastadv.attacks.gradient import refuse_costs_options
from fastadv.attacks.iterative import IterativeAttack
from fastadv.attacks.options import IterativeAttackOptions
from fastadv.utils.validation import check_real


class KLAttack(IterativeAttack):
    """Moves the prediction away from that for the clean image, by KL(p(X) || p(X_adv)) (Zhang et al., 2019).

    For training by ``fastadv.train.TradesTask``: it does not know the true class, and may leave an image misclassified
    that was so before. The clean prediction is computed once, so a call of n steps takes n + 1 forward passes.

    Args:
        alpha: length of a step in pixel values; None takes 2.5 eps / steps.
        steps: number of iterations; None takes 10.
        noise: standard deviation of the normal noise that the first step starts from, in pixel values: without it, the
            gradient is zero. The default is the authors' 0.001 for images in [0, 1].
    """

    name = "kl"
    rule = "kl"
    ascend = True
    draws = True

    def __init__(
        self, model: Callable[..., Any], *, noise: float = 0.255, **options: Unpack[IterativeAttackOptions]
    ) -> None:
        super().__init__(model, **options)
        check_real("noise", noise, above=0)
        refuse_costs_options(self)
        self.noise = float(noise)

    @classmethod
    def refused_options(cls) -> set[str]:
        return super().refused_options() | {"label_smoothing", "aux_weight"}

    def step_sizes(self, size: Size) -> Sequence[float | Tensor]:
        steps = self.steps or 10
        return [2.5 * size.eps / steps if self.alpha is None else self.alpha] * steps

    def start_(self, adv: Tensor, clean: Tensor, eps: float | Tensor, seed: int | Tensor, offset: int) -> None:
        ops.noise_step_(adv, clean, self.noise, "normal", seed, offset, self.space)

    def options(self) -> dict[str, Any]:
        return {**super().options(), "noise": self.noise}
