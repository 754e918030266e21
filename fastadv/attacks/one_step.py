"""OneStepAttack: a single step of length eps along the gradient's sign."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from fastadv.attacks.engine.step_sizes import Size
from fastadv.attacks.engine.zero_gradients import without_gradient
from fastadv.attacks.gradient import GradientAttack


class OneStepAttack(GradientAttack):
    """X_adv = X + eps * sign(gradient of the cost), or - towards a target: the one-step methods of appendix A."""

    one_gradient = True

    def step_sizes(self, size: Size) -> Sequence[float | Tensor]:
        return [size.eps]

    def _run_each(
        self, clean: Tensor, labels: Tensor | None, sizes: Sequence[Size], seed: int | Tensor, offset: int
    ) -> Iterator[Tensor]:
        """One gradient for all sizes: eps only scales the step. Never captured, for no iteration is run twice."""
        if self.starts_elsewhere:  # and so has another gradient for another size
            yield from super()._run_each(clean, labels, sizes, seed, offset)
            return
        if self._captures(clean):
            self._leave_out_capture("one gradient serves all sizes of at_each, and is not replayed")
        gradient = self._input_gradient()

        def first() -> Tensor:  # [N, C, ...]
            gradient.refresh()
            return gradient.first(gradient.in_layout(clean), labels, seed, offset)[1]

        with torch.inference_mode(False), torch.no_grad():
            grad = gradient.run(clean, first)
            self.without_gradient = without_gradient(grad) if self.counting else None
            direction = self.direction(grad, None)  # [N, C, ...]
        for size in sizes:
            with torch.inference_mode(False), torch.no_grad():
                [alpha] = self.step_sizes(size)
                adv = clean.clone()
                self.step_(adv, adv, direction, alpha if self.ascend else -alpha, size.eps)
            yield adv
