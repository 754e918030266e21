"""AttackState: the values that an attack's steps read and write."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

from torch import Tensor

T = TypeVar("T")


@dataclass
class AttackState:
    """The state of an attack between two steps. A captured iteration has separate tensors in all fields.

    Args:
        adv: [N, C, ...], mutated in place by each step.
        clean: [N, C, ...], adv itself for a single step from the clean image.
        eps: radius of the ball in pixel values, a number or [N].
        alpha: the step in pixel values, a number or [N]; negative towards a target.
        target: [N] int64, at first the labels, if any, and later the target that the first step chose; for the rule
            ``"kl"``, the logits of the clean images [N, K].
        seed: of the random numbers, or a tensor [2] that the operators read on the device.
        offset: index of the first example in the stream.
        direction: [N, C, ...], what the previous step followed, if the attack needs it.
        without_gradient: scalar, number of examples without a gradient in the first step, if counted.
        judge: is told of the images and their logits before each step, and returns whether enough of them need the
            step; None if nobody judges them.
    """

    adv: Tensor
    clean: Tensor
    eps: float | Tensor
    alpha: float | Tensor
    target: Tensor | None
    seed: int | Tensor
    offset: int
    direction: Tensor | None = None
    without_gradient: Tensor | None = None
    judge: Callable[[Tensor, Tensor], bool] | None = None

    def rows(self, index: Tensor | slice) -> AttackState:
        """The state of some of the examples: of a tensor of places copies, of a slice views."""

        def some(value: T) -> T:
            return value[index] if isinstance(value, Tensor) and value.dim() else value  # type: ignore[return-value]

        adv = some(self.adv)
        return replace(
            self,
            adv=adv,
            clean=adv if self.clean is self.adv else some(self.clean),
            eps=some(self.eps),
            alpha=some(self.alpha),
            target=some(self.target),
            direction=some(self.direction),
        )
