"""Steps: an attack's steps as two functions of its state, which are run directly or captured."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

from torch import Tensor

from fastadv.attacks.engine.state import AttackState


@dataclass(frozen=True, eq=False)
class Steps:
    """The first step of an attack, and each further one.

    Args:
        first_: the start and the first step, which chooses the target.
        next_: a further step, for that target.
        keeps_clean: keep the clean images in a separate tensor. A single step from the clean image needs no copy.
        options: the Python values that the steps read besides the state; a captured step does not see changes.
    """

    first_: Callable[[AttackState], None]
    next_: Callable[[AttackState], None]
    keeps_clean: bool
    options: Hashable

    def run_(self, state: AttackState, alphas: Sequence[float | Tensor]) -> None:
        """Take steps of these lengths, numbers or [N], from state.adv in place; restore it if one raises."""
        if self.keeps_clean:
            state.clean = state.adv.clone()  # [N, C, ...]
        try:
            self.first_(state)
            for state.alpha in alphas[1:]:
                self.next_(state)
        except BaseException:
            if self.keeps_clean:
                state.adv.copy_(state.clean)
            raise
