"""OneStepAttack: a single step of length eps along the gradient's sign."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from fastadv.attacks.amounts import Size
from fastadv.attacks.folding import FoldedModel
from fastadv.attacks.gradient import GradientAttack
from fastadv.attacks.isolation import isolated, mixes_examples, raw_module
from fastadv.attacks.no_gradient import without_gradient


class OneStepAttack(GradientAttack):
    """X_adv = X + eps * sign(gradient of the cost), or - towards a target: the one-step methods of appendix A."""

    one_gradient = True

    def _alphas(self, size: Size) -> Sequence[float | Tensor]:
        return [size.eps]

    def _run_each(
        self, clean: Tensor, labels: Tensor | None, sizes: Sequence[Size], seed: int | Tensor, offset: int
    ) -> Iterator[Tensor]:
        """One gradient for all sizes: eps only scales the step. Never captured, for no iteration is run twice."""
        if self.starts_elsewhere:  # and so has another gradient for another size
            yield from super()._run_each(clean, labels, sizes, seed, offset)
            return
        if self._capturing(clean):
            self._captures.leave_out(self, "one gradient serves all sizes of at_each, and is not replayed")
        model = raw_module(self.model)

        def gradient(folded: FoldedModel | None) -> Tensor:  # [N, C, ...]
            seen = clean
            if folded is not None:
                folded.refresh()
                seen = folded.arranged(clean)
            return self._first_gradient(model, seen, labels, seed, offset)[1]

        with torch.inference_mode(False), torch.no_grad(), isolated(model, self.bn):
            self._mixes_examples = mixes_examples(model, self.bn)
            grad = self._run_folded(model, clean, gradient)
            self.without_gradient = without_gradient(grad) if self.counting else None
            direction = self._direction(grad, None)  # [N, C, ...]
        for size in sizes:
            with torch.inference_mode(False), torch.no_grad():
                [alpha] = self._alphas(size)
                adv = clean.clone()
                self._step_(adv, adv, direction, alpha if self.ascend else -alpha, size.eps)
            yield adv
