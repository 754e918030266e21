"""Detects that a model, or a part of it, runs in training mode during an attack or an evaluation."""

from __future__ import annotations

import random
import sys
import threading
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.module import register_module_forward_pre_hook

from fastadv.utils.modules_behind import runs_compiled
from fastadv.utils.stacklevel import user_stacklevel

_REMEDY = "put hidden modules in evaluation mode, and call functions such as dropout with training=False"
_AVERAGE = (
    "If it is part of the model, average over it, as by eot=10 of attacks that follow a gradient: one pass follows one "
    "draw, and the model looks more robust than it is"
)
_MOVES = "moves running statistics"
_DRAWS = "draws random numbers"


class TrainingWatch:
    """Within the block, watches a forward pass for random numbers and updates of running statistics.

    All modules that were found are in evaluation mode then, but others may be hidden behind a function.

    Args:
        attack: the attack's name.
        model: the model that runs.
        images: its input [N, C, ...].
    """

    def __init__(self, attack: str, model: Callable[..., Any], images: Tensor) -> None:
        self._attack = attack
        self._images = images
        # Compiled code depends on global module hooks: a hook would recompile it for this pass.
        self._hooks = not runs_compiled(model)

    def __enter__(self) -> TrainingWatch:
        self._moves = False
        self._thread = threading.get_ident()
        self._before, self._others_before = self._generators(), _other_generators()
        self._handle = register_module_forward_pre_hook(self._look) if self._hooks else None
        return self

    def __exit__(self, *_: object) -> None:
        if self._handle is not None:
            self._handle.remove()
        same = all(map(torch.equal, self._before, self._generators()))
        self._draws = not same or self._others_before != _other_generators()

    def warn(self, logits: Tensor, again: Callable[[], Tensor] | None) -> bool:
        """Warn of what the pass with logits [N, K] did; return whether there was anything to warn of.

        Args:
            logits: of the pass.
            again: runs the model again, to be sure that it draws; None if it may draw.
        """
        moves = self._moves
        draws = again is not None and self._draws and (moves or self._draws_again(logits, again))
        seen = [what for what, is_seen in ((_MOVES, moves), (_DRAWS, draws)) if is_seen]
        if seen:
            if_meant = f". {_AVERAGE}" if draws else ""
            warnings.warn(
                f"{self._attack}: the model {' and '.join(seen)} in every pass of the attack, although all of its "
                f"modules that were found are in evaluation mode. Unless the randomness is part of the model, the "
                f"attack does not follow the network that is evaluated: {_REMEDY}{if_meant}",
                stacklevel=user_stacklevel(),
            )
        return bool(seen)

    def _draws_again(self, logits: Tensor, again: Callable[[], Tensor]) -> bool:
        """True if the model draws again: the first draw may be another thread's, or a lazy module's initialisation."""
        with self:
            others = again()  # [N, K]
        return self._draws and not torch.equal(logits, others)

    def _look(self, module: nn.Module, _: Any) -> None:
        if torch.compiler.is_compiling() or threading.get_ident() != self._thread:
            return
        if isinstance(module, _NormBase) and module.training and module.track_running_stats:
            self._moves = True

    def _generators(self) -> list[Tensor]:
        """Return the states of PyTorch's generators for the CPU and the images' device, without waiting for it."""
        states = [torch.get_rng_state()]
        if self._images.is_cuda:
            states.append(torch.cuda.get_rng_state(self._images.device))
        return states


def _other_generators() -> tuple[Any, ...]:
    """Return the states of Python's and NumPy's own generators, which models draw from, too."""
    numpy = sys.modules.get("numpy")
    if numpy is None:
        return (random.getstate(),)
    _, keys, place, *_ = numpy.random.get_state()
    return random.getstate(), keys.tobytes(), place


class EvaluationWatch(TrainingWatch):
    """Around a forward pass of an evaluation: warns if it updates running statistics."""

    def __exit__(self, *raised: object) -> None:
        super().__exit__(*raised)
        if self._moves:
            warnings.warn(
                f"evaluation: the model {_MOVES} in every pass, although all of its modules that were found are in "
                f"evaluation mode, so this is not the accuracy of the network in evaluation mode: {_REMEDY}",
                stacklevel=user_stacklevel(),
            )
