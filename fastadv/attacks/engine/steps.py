"""Steps: an attack's steps as two functions of its state, which run one after the other or are captured."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

from torch import Tensor

from fastadv.attacks.engine.state import AttackState


@dataclass(frozen=True, eq=False)
class Steps:
    """What an attack does in its first step, and in each further one.

    Args:
        first_: the start and the first step, which chooses the target.
        next_: a further step, for that target.
        keeps_clean: whether the state's clean images stay in a tensor of their own. A single step from the clean image
            needs no second copy of it.
        options: what the steps read from Python besides the state; a captured step does not follow a change of it.
    """

    first_: Callable[[AttackState], None]
    next_: Callable[[AttackState], None]
    keeps_clean: bool
    options: Hashable

    def run_(self, state: AttackState, alphas: Sequence[float | Tensor]) -> None:
        """Make state.adv adversarial in place by steps of these lengths, numbers or [N]; as it was if one raises."""
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
