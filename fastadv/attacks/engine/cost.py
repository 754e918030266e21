"""Cost: what an attack increases or decreases, by its derivatives with respect to the logits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from fastadv import ops
from fastadv.attacks.engine.gradient_scale import to_common_scale
from fastadv.attacks.engine.loss_gradient import Loss, scaled_loss_grad


@dataclass(frozen=True, eq=False)
class Cost:
    """Of the logits and, weighted, of auxiliary logits: the cross-entropy with a class, the entropy, or another loss.

    Args:
        rule: which class, one of :func:`fastadv.ops.target_grad`.
        label_smoothing: of the cross-entropy.
        aux_weight: of the same cost at each auxiliary output, with the target that the logits choose.
        mixes_examples: whether an example's logits depend on the rest of its batch: the costs of all examples are added
            up as they are then.
        loss: takes the place of the cross-entropy or the entropy, and is differentiated by autograd.
        target_known: whether the labels are the target that the rule chose before.
    """

    rule: str
    label_smoothing: float = 0.0
    aux_weight: float = 0.0
    mixes_examples: bool = False
    loss: Loss | None = None
    target_known: bool = False

    def for_known_target(self) -> Cost:
        """The same cost where the target has been chosen, and is passed as labels."""
        return replace(self, target_known=True)

    def derivatives(
        self,
        logits: Tensor,
        auxiliary: Sequence[Tensor],
        labels: Tensor | None,
        seed: int | Tensor = 0,
        offset: int = 0,
    ) -> tuple[Tensor, list[Tensor]]:
        """(target [N], the cost's derivatives with respect to logits [N, K] and each auxiliary [N, K]).

        Each example's are multiplied by a power of two: half precision would round those of a confident model to zero,
        and no step depends on the length of a gradient.
        """
        main = self._derivative(logits, labels, seed, offset, self.target_known)
        if not auxiliary and not self.mixes_examples:
            return main.target, [main.dlogits]
        others = [self._derivative(aux, main.target, target_known=True) for aux in auxiliary]
        weights = [1.0] + [self.aux_weight] * len(others)
        return main.target, to_common_scale([main, *others], weights, whole_batch=self.mixes_examples)

    def _derivative(
        self,
        logits: Tensor,
        labels: Tensor | None,
        seed: int | Tensor = 0,
        offset: int = 0,
        target_known: bool = False,
    ) -> ops.ScaledTargetGrad:
        if self.loss is not None and target_known and labels is not None:
            return scaled_loss_grad(self.loss, logits, labels)
        rule = "label" if target_known and self.rule != "entropy" else self.rule
        closed_form = ops.scaled_target_grad(logits, rule, labels, self.label_smoothing, seed, offset)
        return closed_form if self.loss is None else scaled_loss_grad(self.loss, logits, closed_form.target)
