"""The progress of one pass over the images: what is decided, and the work that is left as far as it can be foreseen."""

from __future__ import annotations

from collections.abc import Sequence

from fastadv.utils.progress import Work


class PassProgress:
    """Tells a bar of each batch that is done, weighed by the gradients that it took.

    An attack that stops early spends less on images that it has fooled, so the work that is left is foreseen from what
    the images so far have cost: the rest of this pass, and later passes of such attacks.

    Args:
        work: the bar.
        images: number of images of the pass.
        cost: of each image, in forward passes, at most.
        later: the cost of each later pass at most, and whether its attack stops early.
        spent_share: the share of ``cost`` that is expected until the first batch is done.
    """

    def __init__(
        self, work: Work, images: int, cost: float, later: Sequence[tuple[float, bool]], spent_share: float = 1.0
    ) -> None:
        self.spent_share = spent_share
        self._work = work
        self._cost = cost
        self._later = later
        self._left = images
        self._measured, self._spent = 0, 0.0
        self._decided = 0

    def __call__(self, images: int, *, spent: float | None = None, decided: int | None = None) -> None:
        """Report a batch that is done.

        Args:
            images: how many.
            spent: what the batch cost, in forward passes; None if it is not known, and as much as was expected.
            decided: how many of them are misclassified; None if that is not shown.
        """
        self._left -= images
        if decided is not None:
            self._find(decided)
        self._work.advance(images * self._cost if spent is None else spent)
        if spent is not None:
            self._measured += images
            self._spent += spent
            self.spent_share = self._spent / (self._measured * self._cost)
            self._foresee()

    def resume(self, left: int, decided: int) -> None:
        """Leave out what was measured before an interruption.

        Args:
            left: number of images that are left.
            decided: how many of the others are misclassified.
        """
        self._left = left
        self._foresee()
        self._find(decided)

    def _foresee(self) -> None:
        later = sum(cost * (self.spent_share if stops_early else 1.0) for cost, stops_early in self._later)
        self._work.expect(self._left * self._cost * self.spent_share + later)

    def _find(self, decided: int) -> None:
        self._decided += decided
        self._work.find(f"{self._decided:,} decided, {self._left:,} left")
