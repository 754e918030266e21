"""The interface of loaders for training and evaluation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from torch import Tensor


class Loader(Protocol):
    """Yields minibatches in an order that depends on the epoch, so that a run can continue in the middle of one.

    With several processes, each has its own loader, with the same number of minibatches; examples are split among them.
    """

    indices: Tensor  # [m], data-set indices of the last minibatch

    def __len__(self) -> int: ...
    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]: ...
