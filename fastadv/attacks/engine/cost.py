"""Cost: what an attack increases or decreases, given by its derivatives with respect to the logits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from torch import Tensor

from fastadv import ops
from fastadv.attacks.engine.gradient_scale import to_common_scale
from fastadv.attacks.engine.loss_gradient import Loss, scaled_loss_grad

KL = "kl"  # the rule of attacks that move the prediction away from that for the clean image
MARGINS = ("margin", "dlr", "targeted_dlr")  # rules with a loss of their own, see fastadv.ops.row_losses


class Derivatives(NamedTuple):
    """The derivatives of each example's cost, times a power of two.

    Args:
        target: [N] int64, the class that the cost is about; or, as given, another goal with N rows.
        outputs: with respect to the logits, and to each auxiliary output: [N, K] each.
        exponent: [N] int32; the derivatives are these, times 2**exponent.
    """

    target: Tensor
    outputs: list[Tensor]
    exponent: Tensor


@dataclass(frozen=True, eq=False)
class Cost:
    """The cross-entropy with a class, the entropy, the divergence from the prediction for the clean image, or another
    loss, of the logits and, weighted, of auxiliary logits.

    Args:
        rule: chooses the class, see :func:`fastadv.ops.target_grad`; :data:`KL` takes logits of the clean images
            [N, K] in place of labels and a target. For ``"targeted_dlr"`` the label and the target of each example
            [N, 2] take their place.
        label_smoothing: of the cross-entropy.
        aux_weight: of the same cost at each auxiliary output, with the target that the main logits choose.
        mixes_examples: true if an example's logits depend on the rest of its batch: all examples then share one scale.
        loss: replaces the cross-entropy or the entropy, and is differentiated by autograd.
        name: the loss on the class that the rule chooses: ``"ce"``, the cross-entropy, ``"margin"`` or ``"dlr"``.
        target_known: true if the labels are the target that the rule chose before.
    """

    rule: str
    label_smoothing: float = 0.0
    aux_weight: float = 0.0
    mixes_examples: bool = False
    loss: Loss | None = None
    name: str = "ce"
    target_known: bool = False

    def for_known_target(self) -> Cost:
        """Return the same cost for a target that was already chosen, and is passed as labels."""
        return replace(self, target_known=True)

    def check_classes(self, user: str, classes: int) -> None:
        """Raise ValueError if a model with so many classes has no such cost; ``user`` is the attack's name."""
        if self.name == "dlr" and classes < 3:
            raise ValueError(
                f"{user}: loss='dlr' needs at least three classes, and the model has {classes}: use loss='margin'"
            )

    def derivatives(
        self,
        logits: Tensor,
        auxiliary: Sequence[Tensor],
        labels: Tensor | None,
        seed: int | Tensor = 0,
        offset: int = 0,
    ) -> Derivatives:
        """Return the cost's derivatives with respect to logits [N, K] and each auxiliary output [N, K].

        Each example's derivatives are multiplied by a power of two: half precision would round those of a confident
        model to zero, and no step depends on the length of a gradient.
        """
        main = self._derivative(logits, labels, seed, offset, self.target_known)
        if not auxiliary and not self.mixes_examples:
            return Derivatives(main.target, [main.dlogits], main.exponent)
        others = [self._derivative(aux, main.target, target_known=True) for aux in auxiliary]
        weights = [1.0] + [self.aux_weight] * len(others)
        scaled, exponent = to_common_scale([main, *others], weights, whole_batch=self.mixes_examples)
        return Derivatives(main.target, scaled, exponent)

    def _derivative(
        self,
        logits: Tensor,
        labels: Tensor | None,
        seed: int | Tensor = 0,
        offset: int = 0,
        target_known: bool = False,
    ) -> ops.ScaledTargetGrad:
        if self.rule == KL and labels is not None and self.loss is None:
            return ops.ScaledTargetGrad(labels, *ops.scaled_kl_grad(logits, labels))
        if self.loss is not None and (target_known or self.rule in (KL, *MARGINS)) and labels is not None:
            return scaled_loss_grad(self.loss, logits, labels)
        if self.rule in MARGINS and labels is not None:
            classes, targets = label_and_target(labels)
            found = ops.scaled_target_grad(logits, self.rule, classes, targets=targets)
            return found._replace(target=labels)
        if self.name != "ce" and (target_known or self.rule == "label"):
            return ops.scaled_target_grad(logits, self.name, labels)
        rule = "label" if target_known and self.rule != "entropy" else self.rule
        closed_form = ops.scaled_target_grad(logits, rule, labels, self.label_smoothing, seed, offset)
        if self.name != "ce":
            return ops.scaled_target_grad(logits, self.name, closed_form.target)
        return closed_form if self.loss is None else scaled_loss_grad(self.loss, logits, closed_form.target)


def label_and_target(goal: Tensor) -> tuple[Tensor, Tensor | None]:
    """Split what a cost is about, a class [N], or a label and a target [N, 2], into labels [N] and targets [N]."""
    if goal.dim() == 1:
        return goal, None
    label, target = goal.unbind(1)
    return label, target
