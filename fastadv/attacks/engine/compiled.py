"""Compiles forward pass, target and gradient to the images as one function with torch.compile."""

from __future__ import annotations

import warnings
from types import FunctionType
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

from fastadv.attacks.engine.cost import Cost
from fastadv.attacks.engine.forward import Forward
from fastadv.utils.compile_errors import compile_error_reason, is_compile_error
from fastadv.utils.stacklevel import user_stacklevel


class CompiledGradient:
    """The compiled gradient of one attack's model, used until it fails.

    Both passes are in one graph, without autograd's boundary between them: the compiler sees which activations the
    backward pass reads, and decides which to keep and which to recompute.
    """

    def __init__(self) -> None:
        self._function: Any = None
        self._failed = False
        self._reason: str | None = None  # of a failure that the model itself may have caused

    def __reduce__(self) -> tuple[type[CompiledGradient], tuple[()]]:
        return CompiledGradient, ()  # compiled code is not copied

    def __call__(
        self,
        forward: Forward,
        cost: Cost,
        images: Tensor,
        labels: Tensor | None,
        seed: int | Tensor,
        offset: int,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor] | None:
        """Return the fields of a :class:`Gradient` at images [N, C, ...], for labels [N]; None if it must be eager."""
        # torch.compile does not compile under a dispatch mode, which has to see every operator.
        if self._failed or is_in_torch_dispatch_mode(include_infra_modes=False):
            return None
        if self._function is None:
            # Recompilations are limited per code object: other attacks must not use up this one's.
            own = FunctionType(_gradient.__code__.replace(), _gradient.__globals__)
            self._function = torch.compile(own, fullgraph=True)
        try:
            result: tuple[Tensor, Tensor, Tensor, Tensor] = self._function(forward, cost, images, labels, seed, offset)
            return result
        except Exception as error:
            if not is_compile_error(error):
                raise
            self._reason = compile_error_reason(error)
            return None

    def eager_worked(self, user: str) -> None:
        """Give up and warn if the gradient could not be compiled: the model itself works, as the eager run shows."""
        if self._reason is not None:
            warnings.warn(f"{user} runs without compile=True: {self._reason}", stacklevel=user_stacklevel())
            self._failed, self._reason = True, None


def _gradient(
    forward: Forward, cost: Cost, images: Tensor, labels: Tensor | None, seed: int | Tensor, offset: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    def outputs_of(x: Tensor) -> list[Tensor]:
        logits, auxiliary = forward(x.clone())  # the model may write to its input
        return [logits, *auxiliary]

    outputs, vjp, *_ = torch.func.vjp(outputs_of, images)  # [N, K] each
    logits, *auxiliary = (output.detach() for output in outputs)
    target, derivatives, exponent = cost.derivatives(logits, auxiliary, labels, seed, offset)
    (grad,) = vjp(derivatives)
    return target, grad, logits, exponent
