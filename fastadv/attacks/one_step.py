"""OneStepAttack: a single step of length eps along the gradient's sign."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from fastadv.attacks.engine.step_sizes import Size
from fastadv.attacks.engine.zero_gradients import count_zero_gradients
from fastadv.attacks.gradient import GradientAttack


class OneStepAttack(GradientAttack):
    """X_adv = X + eps * sign(gradient of the cost), or minus towards a target: the one-step methods of appendix A."""

    one_gradient = True

    def step_sizes(self, size: Size) -> Sequence[float | Tensor]:
        return [size.eps]

    def _run_each(
        self, clean: Tensor, labels: Tensor | None, sizes: Sequence[Size], seed: int | Tensor, offset: int
    ) -> Iterator[Tensor]:
        """Compute one gradient for all sizes, since eps only scales the step. Not captured: no iteration runs twice."""
        if self.starts_elsewhere:  # the gradient then depends on the size
            yield from super()._run_each(clean, labels, sizes, seed, offset)
            return
        if self._captures(clean):
            self._log_no_capture("at_each computes one gradient for all sizes, so there is nothing to replay")
        gradient = self._input_gradient()

        def first() -> Tensor:  # [N, C, ...]
            gradient.refresh()
            return gradient.first(gradient.in_layout(clean), labels, seed, offset)[1]

        with torch.inference_mode(False), torch.no_grad():
            grad = gradient.run(clean, first)
            self.without_gradient = count_zero_gradients(grad) if self.counting else None
            direction = self.direction(grad, None)  # [N, C, ...]
        for size in sizes:
            with torch.inference_mode(False), torch.no_grad():
                [alpha] = self.step_sizes(size)
                adv = clean.clone()
                self.step_(adv, adv, direction, alpha if self.ascend else -alpha, size.eps)
            yield adv
