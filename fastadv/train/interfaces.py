"""What the trainer asks of a task, a loader and averaged weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

from fastadv.streams import RecordedDraws
from fastadv.train.task import Hits


class Task(Protocol):
    """Forward pass and loss of a minibatch."""

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor: ...
    def hits(self) -> Hits: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> None: ...


@runtime_checkable
class RecordableTask(Task, Protocol):
    """A task whose call can be recorded as a CUDA graph, and the replays counted as calls."""

    def adversarial_of(self, m: int) -> int: ...
    def recorded(self, draws: RecordedDraws) -> AbstractContextManager[None]: ...
    def replay(self, draws: RecordedDraws) -> None: ...


class Averages(Protocol):
    """Weights averaged over the iterations, in a module like the model."""

    module: nn.Module

    def update(self, model: nn.Module, step: int) -> None: ...
    def get_decay(self, step: int) -> float: ...


class Loader(Protocol):
    """Minibatches whose order is a function of the epoch, so that a run can continue in the middle of one.

    Of several processes each has a loader of its own, of as many minibatches; the examples are split among them.
    """

    indices: Tensor  # [m], of the batch last yielded

    def __len__(self) -> int: ...
    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]: ...
