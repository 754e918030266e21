"""Momentum iterative FGSM (Dong et al., 2018): iterative, and yet it transfers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from fastadv.attacks.amounts import Size
from fastadv.attacks.iterative import IterativeAttack
from fastadv.options import is_number


class MIFGSM(IterativeAttack):
    """Steps along the sign of an accumulated gradient, each gradient divided by its mean absolute value.

    Args:
        alpha: length of a step in pixel values; None takes eps / steps.
        steps: number of iterations; None takes 10.
        decay: of the accumulated gradient; 0 gives the basic iterative method.
    """

    name = "mi_fgsm"
    rule = "label"
    ascend = True
    needs_labels = True

    def __init__(self, model: Callable[..., Any], *, decay: float = 1.0, **options: Any) -> None:
        super().__init__(model, **options)
        if not is_number(decay) or decay < 0:
            raise ValueError(f"decay must be zero or more and finite, got {decay!r}")
        self.decay = decay

    def _alphas(self, size: Size) -> Sequence[float | Tensor]:
        steps = self.steps or 10
        return [size.eps / steps if self.alpha is None else self.alpha] * steps

    def _direction(self, grad: Tensor, previous: Tensor | None) -> Tensor:
        # The accumulated gradient is kept in float32: in half precision a gradient over its mean leaves the range.
        wide = torch.promote_types(grad.dtype, torch.float32)
        dims = tuple(range(1, grad.dim()))
        mean = torch.linalg.vector_norm(grad, 1, dims, keepdim=True, dtype=wide) / grad[0].numel()  # [N, 1, ...]
        scaled = grad.to(wide).div_(torch.where(mean > 0, mean, 1.0))  # [N, C, ...]
        return scaled if previous is None else previous.mul_(self.decay).add_(scaled)

    def _step_(self, adv: Tensor, clean: Tensor, grad: Tensor, alpha: float | Tensor, eps: float | Tensor) -> None:
        direction = grad if grad.dtype == adv.dtype else torch.sign(grad).to(adv.dtype)
        super()._step_(adv, clean, direction, alpha, eps)

    def _options(self) -> dict[str, Any]:
        return {**super()._options(), "decay": self.decay}
