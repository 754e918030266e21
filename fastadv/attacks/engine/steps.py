"""Steps: an attack's steps as two functions of its state, which are run directly or captured."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fastadv.attacks.engine.state import AttackState


@dataclass(frozen=True, eq=False)
class Steps:
    """The first step of an attack, and each further one.

    Args:
        first_: the start and the first step, which chooses the target.
        next_: a further step, for that target.
        keeps_clean: keep the clean images in a separate tensor. A single step from the clean image needs no copy.
        several: whether there is a further step.
        options: the Python values that the steps read besides the state; a captured step does not see changes.
    """

    first_: Callable[[AttackState], None]
    next_: Callable[[AttackState], None]
    keeps_clean: bool
    several: bool
    options: Hashable

    def run_(self, state: AttackState, alphas: Sequence[float | Tensor], counts: Sequence[int] | None = None) -> None:
        """Take steps of these lengths, numbers or [N], from state.adv in place; restore it if one raises.

        Args:
            state: where to start from.
            alphas: length of each step.
            counts: number of steps of each of the N examples, at least 1: finished examples leave the batch. None keeps
                all examples in it; a step of length 0 leaves an example unchanged.
        """
        if self.keeps_clean:
            state.clean = state.adv.clone()  # [N, C, ...]
        if counts is not None and (len(counts) != len(state.adv) or min(counts) < 1):
            raise ValueError(
                f"step_counts must return {len(state.adv)} numbers, one per image and at least 1, got {list(counts)}"
            )
        try:
            self.first_(state)
            if counts is None or len(set(counts)) == 1:
                for state.alpha in alphas[1 : None if counts is None else counts[0]]:
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
        places = torch.tensor(order, device="cpu").to(state.adv.device, non_blocking=True)  # [N]
        moved = left = state.rows(places)
        for step, alpha in enumerate(alphas[1 : max(counts)], start=1):
            left = left.rows(slice(sum(count > step for count in counts)))  # views of moved
            left.alpha = alpha[places][: len(left.adv)] if isinstance(alpha, Tensor) else alpha
            self.next_(left)
        state.adv.index_copy_(0, places, moved.adv)
