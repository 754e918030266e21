"""Replayed: a loader that repeats each minibatch, for free training."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from torch import Tensor

from fastadv.data.loaders.protocol import Loader
from fastadv.utils.validation import check_count


class Replayed:
    """Repeats each minibatch of another loader, for training with :class:`FreeTask`.

    An epoch is one pass over the data, with ``replays`` times as many minibatches. Nothing is loaded twice: the same
    tensors are yielded again, and must not be modified.

    Args:
        loader: yields minibatches (images [m, C, H, W], labels [m]).
        replays: how often each minibatch is yielded.
        together: minibatches per iteration, which are repeated as a group: 1, 2, 1, 2, 3, 4, ... for two. Minibatches
            that do not fill a last group are left out.

    Attributes:
        loader: the loader whose minibatches are repeated.
        indices: [m] int64, data-set indices of the last minibatch.

    Raises:
        ValueError: if replays or together is below 1.
    """

    def __init__(self, loader: Loader, replays: int, *, together: int = 1) -> None:
        check_count("replays", replays, least=1)
        check_count("together", together, least=1)
        self.loader = loader
        self.replays = replays
        self.together = together
        self.indices = loader.indices

    def __len__(self) -> int:
        """Minibatches per epoch, replays included."""
        return len(self.loader) // self.together * self.together * self.replays

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """The minibatches of one epoch.

        Args:
            epoch: counts from 0.
            start: the first minibatch to yield, in 0..len(self); may be between two replays.

        Raises:
            ValueError: if epoch or start is out of range.
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
