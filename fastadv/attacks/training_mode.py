"""Sees that a model runs in training mode, or a part of it, where it should not."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.module import register_module_forward_pre_hook

from fastadv.callers import caller_level

_MOVES = "moves running statistics"
_DRAWS = "draws random numbers"


class TrainingWatch:
    """Around a forward pass: warns if it draws random numbers or moves statistics, as a network that trains does.

    All modules that were found are in evaluation mode meanwhile; others may hide behind a function.

    Args:
        attack: whose pass it is.
        images: [N, C, ...] that the model is given.
    """

    def __init__(self, attack: str, images: Tensor) -> None:
        self._attack = attack
        self._images = images
        self._moves = False

    def __enter__(self) -> None:
        self._before = self._generators()
        self._handle = register_module_forward_pre_hook(self._look)

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        self._handle.remove()
        if error is None:
            draws = not all(map(torch.equal, self._before, self._generators()))
            self._warn([what for what, seen in ((_MOVES, self._moves), (_DRAWS, draws)) if seen])

    def _look(self, module: nn.Module, _: Any) -> None:
        if torch.compiler.is_compiling():
            return
        if isinstance(module, _NormBase) and module.training and module.track_running_stats:
            self._moves = True

    def _generators(self) -> list[Tensor]:
        """The states of PyTorch's own generators, here and where the images are; neither waits for the device."""
        states = [torch.get_rng_state()]
        if self._images.is_cuda:
            states.append(torch.cuda.get_rng_state(self._images.device))
        return states

    def _warn(self, seen: list[str]) -> None:
        if seen:
            warnings.warn(
                f"{self._attack}: the model {' and '.join(seen)} in every pass of the attack, although all of its "
                f"modules that were found are in evaluation mode. So the attack does not follow the network that is "
                f"evaluated: put hidden modules in evaluation mode, and call functions such as dropout with "
                f"training=False",
                stacklevel=caller_level(),
            )
