"""Replayed: a loader whose minibatches come several times in turn."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from torch import Tensor

from fastadv.data.loaders.protocol import Loader
from fastadv.utils.validation import check_count


class Replayed:
    """The minibatches of another loader, each several times in turn: what :class:`FreeTask` is trained with.

    An epoch is one pass over the data, and has as many times the minibatches. Nothing is loaded twice: the same tensors
    are yielded again, and must be left as they are.

    Args:
        loader: of minibatches (images [m, C, H, W], labels [m]).
        replays: how often each comes.
        together: minibatches that make up an iteration, and come again in the same order: 1, 2, 1, 2, 3, 4, ... for
            two. Those that do not fill a last iteration are left out.

    Attributes:
        loader: the other one.
        indices: [m] int64, the data-set indices of the minibatch last yielded.

    Raises:
        ValueError: replays or together below 1.
    """

    def __init__(self, loader: Loader, replays: int, *, together: int = 1) -> None:
        check_count("replays", replays, least=1)
        check_count("together", together, least=1)
        self.loader = loader
        self.replays = replays
        self.together = together
        self.indices = loader.indices

    def __len__(self) -> int:
        """Minibatches in an epoch, replays among them."""
        return len(self.loader) // self.together * self.together * self.replays

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """The minibatches of one epoch.

        Args:
            epoch: counts from 0.
            start: the first minibatch to yield, in 0..len(self), between two replays, too.

        Raises:
            ValueError: epoch or start out of range.
        """
        if not 0 <= start <= len(self):
            raise ValueError(f"start must be a minibatch of the epoch, 0..{len(self)}, got {start}")
        iterations, skipped = divmod(start, self.together * self.replays)
        minibatches = self.loader.epoch(epoch, iterations * self.together)
        return islice(self._replayed(minibatches, len(self) - start + skipped), skipped, None)

    def _replayed(self, minibatches: Iterator[tuple[Tensor, Tensor]], count: int) -> Iterator[tuple[Tensor, Tensor]]:
        for _ in range(count // (self.together * self.replays)):
            seen = [(images, labels, self.loader.indices) for images, labels in islice(minibatches, self.together)]
            for images, labels, indices in seen * self.replays:
                self.indices = indices
                yield images, labels
