"""What the trainer asks of a task and of averaged weights."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor, nn

from fastadv.train.tasks.adversarial import Hits


class Task(Protocol):
    """Forward pass and loss of a minibatch."""

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor: ...
    def hits(self) -> Hits: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class Averages(Protocol):
    """Weights averaged over the iterations, in a module like the model."""

    module: nn.Module

    def update(self, model: nn.Module, step: int) -> None: ...
