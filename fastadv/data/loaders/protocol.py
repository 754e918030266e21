"""What training and evaluation ask of a loader."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from torch import Tensor


class Loader(Protocol):
    """Minibatches whose order is a function of the epoch, so that a run can continue in the middle of one.

    Of several processes each has a loader of its own, of as many minibatches; the examples are split among them.
    """

    indices: Tensor  # [m], of the batch last yielded

    def __len__(self) -> int: ...
    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]: ...
