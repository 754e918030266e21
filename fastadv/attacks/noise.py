"""Random perturbations, the paper's controls: they do not use the model (appendix A)."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from fastadv import ops
from fastadv.attacks.base import Attack
from fastadv.attacks.engine.step_sizes import Size


class _Noise(Attack):
    draws = True
    kind: ClassVar[str]

    def run_(self, adv: Tensor, labels: Tensor | None, size: Size, seed: int | Tensor, offset: int) -> None:
        ops.noise_step_(adv, adv, size.eps, self.kind, seed, offset, self.space)


class RandomSign(_Noise):
    """X + eps * sign(N(0, 1)): the structure of FGSM without its gradient."""

    name = "random_sign"
    kind = "sign"


class RandomNormal(_Noise):
    """X + T, where T is normal with standard deviation 0.5 eps, truncated to [-eps, eps]."""

    name = "random_normal"
    kind = "truncated_normal"
