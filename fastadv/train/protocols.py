"""Interfaces between the trainer and tasks, and between the trainer and averaged weights."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

from torch import Tensor, nn

from fastadv.train.collapse import Check
from fastadv.train.tasks.correct_counts import CorrectCounts
from fastadv.train.tasks.passes import Passes
from fastadv.utils.rng import RecordedDraws


class StatefulTask(Protocol):
    """Counts correct answers and passes, and has a state for checkpoints."""

    @property
    def steady_from(self) -> int: ...
    def expected_passes(self, m: int, iteration: int) -> Passes: ...
    def take_passes(self) -> Passes: ...
    def hits(self) -> CorrectCounts: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class LossTask(StatefulTask, Protocol):
    """Computes the loss of a minibatch."""

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor: ...


@runtime_checkable
class BackwardTask(StatefulTask, Protocol):
    """Runs the forward and backward passes of a minibatch."""

    def backward(self, images: Tensor, labels: Tensor, backward_fn: Callable[[Tensor], None]) -> Tensor: ...


Task: TypeAlias = LossTask | BackwardTask


@runtime_checkable
class RecordableTask(LossTask, Protocol):
    """A task whose calls can be recorded as a CUDA graph; replays count as calls."""

    def adversarial_of(self, m: int) -> int: ...
    def add_passes(self, passes: Passes) -> None: ...
    def recorded(self, draws: RecordedDraws) -> AbstractContextManager[None]: ...
    def replay(self, draws: RecordedDraws) -> None: ...


class Alarm(NamedTuple):
    """What a sentinel reports.

    Args:
        text: what is wrong, in one line.
        healthy: the last iteration at which nothing was wrong; 0 if that is not known.
    """

    text: str
    healthy: int


class Watch(Protocol):
    """A sentinel, which checks the model now and then."""

    recovered: bool

    @property
    def last(self) -> Check | None: ...
    @property
    def passes(self) -> Passes: ...
    def checks(self, steps: range) -> int: ...
    @property
    def recovers(self) -> bool: ...
    @property
    def spared(self) -> int | None: ...
    def is_due(self, step: int) -> bool: ...
    def keep_images(self, steps: range) -> None: ...
    def after_step(self, step: int, write: Callable[[int, Check], None]) -> Alarm | None: ...
    def recover(self) -> None: ...
    def start_anew(self, *, recovered: bool) -> None: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class Averages(Protocol):
    """Averages weights over the iterations, in a copy of the model."""

    module: nn.Module

    def update(self, model: nn.Module, step: int) -> None: ...
    def get_decay(self, step: int) -> float: ...
