"""Momentum iterative FGSM (Dong et al., 2018): an iterative attack that transfers well."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from typing_extensions import Unpack  # which torch requires

from fastadv.attacks.engine.step_sizes import Size
from fastadv.attacks.iterative import IterativeAttack
from fastadv.attacks.options import IterativeAttackOptions
from fastadv.utils.validation import is_number


class MIFGSM(IterativeAttack):
    """Takes steps along the sign of an accumulated gradient; each gradient is divided by its mean absolute value.

    Args:
        alpha: length of a step in pixel values; None takes eps / steps.
        steps: number of iterations; None takes 10.
        decay: factor for the previously accumulated gradient; 0 gives the basic iterative method.
    """

    name = "mi_fgsm"
    rule = "label"
    ascend = True
    needs_labels = True

    def __init__(
        self, model: Callable[..., Any], *, decay: float = 1.0, **options: Unpack[IterativeAttackOptions]
    ) -> None:
        super().__init__(model, **options)
        if not is_number(decay) or decay < 0:
            raise ValueError(f"decay must be zero or more and finite, got {decay!r}")
        self.decay = decay

    def step_sizes(self, size: Size) -> Sequence[float | Tensor]:
        steps = self.steps or 10
        return [size.eps / steps if self.alpha is None else self.alpha] * steps

    def direction(self, grad: Tensor, previous: Tensor | None) -> Tensor:
        # Accumulate in a separate tensor, because the model may keep the gradient; and in float32, because a gradient
        # divided by its mean can overflow half precision.
        mean = self._mean(grad)  # [N, 1, ...]
        return grad / mean if previous is None else previous.mul_(self.decay).addcdiv_(grad, mean)

    def _mean(self, grad: Tensor) -> Tensor:  # [N, C, ...] -> [N, 1, ...]
        """Return the mean absolute gradient with respect to pixels, which is grad / std; 1 where it is 0."""
        wide, std = torch.promote_types(grad.dtype, torch.float32), self.space.std
        if len(set(std)) == 1:  # a constant factor does not change signs
            total = torch.linalg.vector_norm(grad, 1, tuple(range(1, grad.dim())), dtype=wide)  # [N]
        else:
            norms = torch.linalg.vector_norm(grad.unsqueeze(-1), 1, tuple(range(2, grad.dim() + 1)), dtype=wide)
            total = torch.stack([norm / by for norm, by in zip(norms.unbind(1), std, strict=False)]).sum(0)  # [N]
        mean = total.view(-1, *[1] * (grad.dim() - 1)) / grad[0].numel()
        return torch.where(mean > 0, mean, 1.0)

    def step_(self, adv: Tensor, clean: Tensor, grad: Tensor, alpha: float | Tensor, eps: float | Tensor) -> None:
        direction = grad if grad.dtype == adv.dtype else torch.sign(grad).to(adv.dtype)
        super().step_(adv, clean, direction, alpha, eps)

    def options(self) -> dict[str, Any]:
        return {**super().options(), "decay": self.decay}
