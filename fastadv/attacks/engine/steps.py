"""Steps: an attack's steps as two functions of its state, which are run directly or captured."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fastadv.attacks.engine.leaving import Leaving
from fastadv.attacks.engine.state import AttackState


@dataclass(frozen=True, eq=False)
class Steps:
    """The first step of an attack, and each further one.

    Args:
        first_: the start and the first step, which chooses the target.
        next_: a further step, for that target; returns false, with the images where they were, if too few of them need
            it, as ``state.judge`` says.
        keeps_clean: keep the clean images in a separate tensor. A single step from the clean image needs no copy.
        several: whether there is a further step.
        options: the Python values that the steps read besides the state; a captured step does not see changes.
    """

    first_: Callable[[AttackState], None]
    next_: Callable[[AttackState], bool]
    keeps_clean: bool
    several: bool
    options: Hashable

    def run_(
        self,
        state: AttackState,
        alphas: Sequence[float | Tensor],
        counts: Sequence[int] | None = None,
        leaving: Leaving | None = None,
    ) -> int:
        """Take steps of these lengths, numbers or [N], from state.adv in place; restore it if one raises.

        Args:
            state: where to start from.
            alphas: length of each step.
            counts: number of steps of each of the N examples, at least 1: finished examples leave the batch. None keeps
                all examples in it; a step of length 0 leaves an example unchanged.
            leaving: knows of each example when it is done, and its number of steps; None for examples that are done
                after all of their steps.

        Returns:
            The number of steps of all examples.
        """
        if self.keeps_clean:
            state.clean = state.adv.clone()  # [N, C, ...]
        try:
            if leaving is not None:
                return self._until_done_(state, alphas, leaving)
            self.first_(state)
            if counts is None or len(set(counts)) == 1:
                for state.alpha in alphas[1 : None if counts is None else counts[0]]:
                    self.next_(state)
            else:
                self._leaving_(state, alphas, counts)
            return len(alphas) * len(state.adv) if counts is None else sum(counts)
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

    def _until_done_(self, state: AttackState, alphas: Sequence[float | Tensor], leaving: Leaving) -> int:
        """The steps of examples that may be done after any of them; return the number of steps of all examples."""
        judge = leaving.judge if leaving.judges else None
        left, taken = state, 0
        for step, alpha in enumerate(alphas):
            left.judge, left.alpha = judge, leaving.of_rows(alpha)
            if step == 0:
                self.first_(left)
            elif not self.next_(left):
                left = left.rows(leaving.leave())
                if not len(left.adv):
                    break
                left.judge = None  # they have been judged
                self.next_(left)
            taken += len(left.adv)
            if step + 1 == len(alphas):
                break
            rows = leaving.after(step + 1, left.adv)
            if rows is not None:
                left = left.rows(rows)
            if not len(left.adv):
                break
        state.adv.copy_(leaving.results(left.adv))
        return taken
