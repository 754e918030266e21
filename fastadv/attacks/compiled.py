"""Forward pass, target and gradient to the images as one function of torch.compile."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from types import FunctionType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fastadv.callers import caller_level
from fastadv.compilation import ERRORS, reason_of

if TYPE_CHECKING:
    from fastadv.attacks.gradient import GradientAttack


class Compiled:
    """The compiled gradient of one attack's model; None from the first failure on, and why in a warning.

    Both passes are in one graph, without the boundary that autograd puts between them: the compiler sees which
    activations the backward pass reads, and keeps or computes them anew as it sees fit.
    """

    def __init__(self) -> None:
        # torch.compile counts recompilations by the code object, which attacks of other models must not use up.
        own = FunctionType(_gradient.__code__.replace(), _gradient.__globals__)
        self._function: Any = torch.compile(own, fullgraph=True)
        self._failed = False

    def __call__(
        self,
        attack: GradientAttack,
        model: Callable[..., Any],
        images: Tensor,
        rule: str,
        labels: Tensor | None,
        seed: int | Tensor,
        offset: int,
    ) -> tuple[Tensor, Tensor] | None:
        """(target [N], gradient [N, C, ...] of the summed cost) of images [N, C, ...], or None."""
        if self._failed:
            return None
        try:
            result: tuple[Tensor, Tensor] = self._function(attack, model, images, rule, labels, seed, offset)
            return result
        except ERRORS as error:
            self._failed = True
            reason = reason_of(error)
            warnings.warn(f"{attack.name} runs without compile=True: {reason}", stacklevel=caller_level())
            return None


def _gradient(
    attack: GradientAttack,
    model: Callable[..., Any],
    images: Tensor,
    rule: str,
    labels: Tensor | None,
    seed: int | Tensor,
    offset: int,
) -> tuple[Tensor, Tensor]:
    def heads(x: Tensor) -> list[Tensor]:
        logits, auxiliary = attack.heads(model, x)
        return [logits, *auxiliary]

    outputs, vjp, *_ = torch.func.vjp(heads, images)  # [N, K] each
    logits, *auxiliary = (output.detach() for output in outputs)
    target, derivatives = attack.derivatives(logits, auxiliary, rule, labels, seed, offset)
    (grad,) = vjp(derivatives)
    return target, grad
