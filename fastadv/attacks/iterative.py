"""IterativeAttack: many small steps along the gradient's sign, clipped to the eps ball after each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from typing_extensions import Unpack  # which torch requires

from fastadv.attacks.engine.step_sizes import Size, checked_alpha
from fastadv.attacks.gradient import GradientAttack
from fastadv.attacks.options import GradientAttackOptions
from fastadv.utils.validation import check_count


class IterativeAttack(GradientAttack):
    """Takes several steps of the same length; each subclass has its own defaults for None.

    Args:
        alpha: length of a step in pixel values; 0 does not move.
        steps: number of iterations.
    """

    def __init__(
        self,
        model: Callable[..., Any],
        *,
        alpha: float | None = None,
        steps: int | None = None,
        **options: Unpack[GradientAttackOptions],
    ) -> None:
        super().__init__(model, **options)
        if steps is not None:
            check_count("steps", steps, least=1)
        self.alpha = None if alpha is None else checked_alpha(alpha, self.space)
        self.steps = steps

    def options(self) -> dict[str, Any]:
        return {**super().options(), "alpha": self.alpha, "steps": self.steps}


class PaperIterativeAttack(IterativeAttack):
    """The schedule of section 2.2.

    Args:
        alpha: length of a step in pixel values; None takes 1.
        steps: number of iterations; None takes max(1, int(min(eps + 4, 1.25 eps))), per example if eps is.
    """

    def step_sizes(self, size: Size) -> Sequence[float | Tensor]:
        alpha = 1.0 if self.alpha is None else self.alpha
        iterations = paper_iterations(size.eps) if self.steps is None else self.steps
        if not isinstance(iterations, Tensor):
            return [alpha] * iterations
        # Each example takes its own number of steps: a finished one gets steps of length 0.
        count = torch.arange(max(_iterations_of_each(size)), device=iterations.device)  # [T]
        return list(alpha * (count[:, None] < iterations).to(torch.float32))  # T of [N]

    def step_counts(self, size: Size) -> Sequence[int] | None:
        own_schedule = type(self).step_sizes is not PaperIterativeAttack.step_sizes
        if own_schedule or self.steps is not None or not isinstance(size.eps, Tensor):
            return None
        return _iterations_of_each(size)


def paper_iterations(eps: float | Tensor) -> int | Tensor:
    """Return ``max(1, int(min(eps + 4, 1.25 eps)))``, for a number or per example [N]."""
    if isinstance(eps, Tensor):
        return torch.minimum(eps + 4, 1.25 * eps).to(torch.int64).clamp_(min=1)
    return max(1, int(min(eps + 4, 1.25 * eps)))


def _iterations_of_each(size: Size) -> list[int]:
    iterations: list[int] = paper_iterations(torch.as_tensor(size.on_host(), device="cpu")).tolist()  # type: ignore[union-attr]
    return iterations
