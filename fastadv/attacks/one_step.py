"""OneStepAttack: a single step of length eps along the gradient's sign."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from fastadv.attacks.amounts import Size
from fastadv.attacks.gradient import GradientAttack


class OneStepAttack(GradientAttack):
    """X_adv = X + eps * sign(gradient of the cost), or - towards a target: the one-step methods of appendix A."""

    def _alphas(self, size: Size) -> Sequence[float | Tensor]:
        return [size.eps]
