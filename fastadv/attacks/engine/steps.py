"""Steps: an attack's steps as two functions of its state, which run one after the other or are captured."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import torch
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
        several: whether there is a further step.
        options: what the steps read from Python besides the state; a captured step does not follow a change of it.
    """

    first_: Callable[[AttackState], None]
    next_: Callable[[AttackState], None]
    keeps_clean: bool
    several: bool
    options: Hashable

    def run_(self, state: AttackState, alphas: Sequence[float | Tensor], counts: Sequence[int] | None = None) -> None:
        """Make state.adv adversarial in place by steps of these lengths, numbers or [N]; as it was if one raises.

        Args:
            state: where to start from.
            alphas: length of each step.
            counts: N numbers, how many of the steps each example takes, 1 or more: those that are done leave the
                batch. None keeps all examples in it, which a step of length 0 leaves alone.
        """
        if self.keeps_clean:
            state.clean = state.adv.clone()  # [N, C, ...]
        try:
            self.first_(state)
            if counts is None or len(set(counts)) == 1:
                for state.alpha in alphas[1:]:
                    self.next_(state)
            else:
                self._leaving_(state, alphas, counts)
        except BaseException:
            if self.keeps_clean:
                state.adv.copy_(state.clean)
            raise

    def _leaving_(self, state: AttackState, alphas: Sequence[float | Tensor], counts: Sequence[int]) -> None:
        """The steps after the first, of examples in the order of their counts: each step's are those in front."""
        order = sorted(range(len(counts)), key=lambda row: -counts[row])
        places = torch.tensor(order).to(state.adv.device, non_blocking=True)  # [N]
        moved = left = state.rows(places)
        for step, alpha in enumerate(alphas[1:], start=1):
            left = left.rows(slice(sum(count > step for count in counts)))  # views of moved
            left.alpha = alpha[places][: len(left.adv)] if isinstance(alpha, Tensor) else alpha
            self.next_(left)
        state.adv.index_copy_(0, places, moved.adv)
