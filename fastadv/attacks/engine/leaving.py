"""Leaving: which images of a call need further steps, and the results of those that need none."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from fastadv.attacks.engine.cycles import Cycles
from fastadv.attacks.engine.undecided import Undecided
from fastadv.utils.input_hints import check_labels_in_range

_WORTH_A_GRADIENT = 0.5  # of the rows of a batch: a backward pass takes as long as the forward pass, or longer


class Leaving:
    """Follows the images of a call through its steps.

    An image is done when it is decided, see :class:`Undecided`; when it has taken all of its steps; and, if its iterate
    came before, when it has taken as many further steps as lead to the iterate that is its last.

    Args:
        user: the attack's name, for messages.
        images: [N, C, ...], of the call.
        labels: [N] int64, to judge the images by; None if nobody judges them.
        counts: number of steps of each image, at least 1.
        targeted: the labels are targets.
        cycles: returns, after the first step, what finds iterates that came before; None looks for none.
        logits: of images [n, C, ...], without a gradient: before steps are left out for a cycle, the first images that
            were found in one are asked for twice. A model may draw from a generator of its own, or only at times.
        stays: images that are done stay in the batch, until all are.

    Attributes:
        judges: whether images are judged.
        queries: logits of single images that were computed without a gradient.
    """

    def __init__(
        self,
        user: str,
        images: Tensor,
        labels: Tensor | None,
        counts: Sequence[int],
        *,
        targeted: bool,
        cycles: Callable[[], Cycles | None],
        logits: Callable[[Tensor], Tensor],
        stays: bool,
    ) -> None:
        self._user = user
        self.judges = labels is not None
        self._counts = torch.tensor(counts, device=images.device)  # [N], shortened for images in a cycle
        if labels is None:
            labels = torch.zeros_like(self._counts)  # which nobody reads
        self._undecided = Undecided(images, labels, targeted=targeted)
        self._begin_cycles = cycles
        self._logits = logits
        self._repeats = False  # not seen yet
        self.queries = 0
        self._stays = stays
        self._place = torch.arange(len(counts), device=images.device)  # [n], of the images in the batch

    def judge(self, images: Tensor, logits: Tensor) -> bool:
        """Decide images [n, C, ...] of the batch by their logits [n, K].

        Returns:
            Whether a gradient at all of the images is worth it. If not, those that are left :meth:`leave` the others,
            and need another forward pass.

        Raises:
            ValueError: if a label is none of the model's classes.
        """
        check_labels_in_range(self._user, self._undecided.labels[self._place], logits.shape[1])
        self._undecided.look(self._place, images, logits)
        if self._stays or not len(self._undecided.left):
            return len(self._undecided.left) > 0
        return self._undecided.rows_left(self._place, _WORTH_A_GRADIENT) is None

    def leave(self) -> Tensor:
        """Return which rows of the batch are undecided: [r] int64; the others leave it, after a pass in vain."""
        self.queries += len(self._place)
        rows = self._undecided.rows_left(self._place, math.inf)
        assert rows is not None
        self._place = self._place[rows]
        return rows

    def after(self, step: int, images: Tensor) -> Tensor | None:
        """Return which rows of the batch take the next step: [r] int64, or None for all.

        Args:
            step: number of steps that were taken.
            images: [n, C, ...], where they led.
        """
        if step == 1:
            self._cycles = self._begin_cycles()
        if self._cycles is not None:
            periods = self._cycles.periods(self._place, images)  # [n]
            if not self._repeats and (periods > 0).any():
                self._repeats = self._answers_again(images[periods > 0])
            if self._repeats:
                self._shorten(step, periods)
        self._undecided.finish(self._place, images, self._counts[self._place] <= step)
        if not len(self._undecided.left):
            return self._place[:0]
        rows = None if self._stays else self._undecided.rows_left(self._place)
        if rows is not None:
            self._place = self._place[rows]
        return rows

    def _answers_again(self, images: Tensor) -> bool:
        """True if the model gives the same logits for images [r, C, ...] twice; if not, no more cycles are found."""
        self.queries += 2 * len(images)
        same = torch.equal(self._logits(images), self._logits(images))
        if not same:
            self._cycles = None
        return same

    def _shorten(self, step: int, periods: Tensor) -> None:
        """Leave out whole cycles of the steps that images in a cycle, of periods [n], still have to take."""
        left = self._counts[self._place] - step  # [n]
        whole = torch.where(periods > 0, left - left % periods.clamp(min=1), 0)  # [n]
        self._counts[self._place] -= whole

    def of_rows(self, number: float | Tensor) -> float | Tensor:
        """The numbers of the images in the batch [n], of one for each of the call's images [N] or for all."""
        return number[self._place] if isinstance(number, Tensor) and number.dim() else number

    def results(self, images: Tensor) -> Tensor:
        """The results of all images [N, C, ...], of which those in the batch have come to [n, C, ...]."""
        self._undecided.finish(self._place, images, torch.ones_like(self._place, dtype=torch.bool))
        return self._undecided.adv
