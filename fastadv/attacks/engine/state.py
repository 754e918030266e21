"""AttackState: what an attack's next step reads and writes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeVar

from torch import Tensor

T = TypeVar("T")


@dataclass
class AttackState:
    """An attack between two steps. A captured iteration has tensors of its own in all fields.

    Args:
        adv: [N, C, ...], mutated in place by each step.
        clean: [N, C, ...], adv itself where a single step starts from the clean image.
        eps: radius of the ball in pixel values, a number or [N].
        alpha: the step in pixel values, a number or [N]; negative towards a target.
        target: [N] int64, the true classes at first, if any, and later those that the first step chose.
        seed: of the random numbers, or a stream [2] that the operators read on the device.
        offset: index of the first example in the stream.
        direction: [N, C, ...], what the previous step followed, where an attack remembers it.
        without_gradient: scalar, how many examples the first step found no gradient for, where that is counted.
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
