"""N-FGSM: one step from noise that is larger than eps, and that nothing clips."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor
from typing_extensions import Unpack  # which torch requires

from fastadv import ops
from fastadv.attacks.engine.step_sizes import Size, checked_alpha
from fastadv.attacks.one_step import OneStepAttack
from fastadv.attacks.options import GradientAttackOptions
from fastadv.utils.validation import check_real


class NFGSM(OneStepAttack):
    """X + u + alpha * sign(dJ(X + u, y_true) / dX), u uniform on [-noise * eps, noise * eps] (de Jorge et al., 2022).

    Made for training: its authors report that one step from such noise avoids the catastrophic overfitting of one step
    from a smaller start. The perturbation is not projected on the eps ball, and reaches (noise + 1) * eps, 24 for an
    eps of 8: its images do not measure robustness at eps. The pixel range holds.

    Args:
        noise: half width of the noise, as a multiple of eps; 2 is the authors'.
        alpha: length of the step in pixel values; None takes eps, as the authors do.
    """

    name = "n_fgsm"
    rule = "label"
    ascend = True
    needs_labels = True
    draws = True
    ball = None

    def __init__(
        self,
        model: Callable[..., Any],
        *,
        noise: float = 2.0,
        alpha: float | None = None,
        **options: Unpack[GradientAttackOptions],
    ) -> None:
        super().__init__(model, **options)
        check_real("noise", noise, least=0)
        self.noise = float(noise)
        self.alpha = None if alpha is None else checked_alpha(alpha, self.space)

    def step_sizes(self, size: Size) -> Sequence[float | Tensor]:
        return [size.eps if self.alpha is None else self.alpha]

    def start_(self, adv: Tensor, clean: Tensor, eps: float | Tensor, seed: int | Tensor, offset: int) -> None:
        ops.noise_step_(adv, clean, self.noise * eps, "uniform", seed, offset, self.space)

    def step_(self, adv: Tensor, clean: Tensor, grad: Tensor, alpha: float | Tensor, eps: float | Tensor) -> None:
        reach = 2 * (self.noise * eps + alpha)  # a ball that clips nothing
        ops.sign_step_(adv, clean, grad, alpha, reach, self.space)

    def options(self) -> dict[str, Any]:
        return {**super().options(), "noise": self.noise, "alpha": self.alpha}
