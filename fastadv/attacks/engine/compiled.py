"""Forward pass, target and gradient to the images as one function of torch.compile."""

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
    """The compiled gradient of one attack's model, until the first failure.

    Both passes are in one graph, without the boundary that autograd puts between them: the compiler sees which
    activations the backward pass reads, and keeps or computes them anew as it sees fit.
    """

    def __init__(self) -> None:
        self._function: Any = None
        self._failed = False
        self._reason: str | None = None  # of a failure that may be the model's own

    def __reduce__(self) -> tuple[type[CompiledGradient], tuple[()]]:
        return CompiledGradient, ()  # what was compiled stays where it was

    def __call__(
        self,
        forward: Forward,
        cost: Cost,
        images: Tensor,
        labels: Tensor | None,
        seed: int | Tensor,
        offset: int,
    ) -> tuple[Tensor, Tensor] | None:
        """(target [N], gradient [N, C, ...]) at images [N, C, ...], labels [N]; None where it must be eager."""
        # torch.compile does not compile under a mode that sees every operator, which wants to see them.
        if self._failed or is_in_torch_dispatch_mode(include_infra_modes=False):
            return None
        if self._function is None:
            # Recompilations are counted by the code object, which attacks of other models must not use up.
            own = FunctionType(_gradient.__code__.replace(), _gradient.__globals__)
            self._function = torch.compile(own, fullgraph=True)
        try:
            result: tuple[Tensor, Tensor] = self._function(forward, cost, images, labels, seed, offset)
            return result
        except Exception as error:
            if not is_compile_error(error):
                raise
            self._reason = compile_error_reason(error)
            return None

    def eager_worked(self, user: str) -> None:
        """If what was just computed could not be compiled, the compiler is to blame: give up, and warn."""
        if self._reason is not None:
            warnings.warn(f"{user} runs without compile=True: {self._reason}", stacklevel=user_stacklevel())
            self._failed, self._reason = True, None


def _gradient(
    forward: Forward, cost: Cost, images: Tensor, labels: Tensor | None, seed: int | Tensor, offset: int
) -> tuple[Tensor, Tensor]:
    def outputs_of(x: Tensor) -> list[Tensor]:
        logits, auxiliary = forward(x.clone())  # which the model may write to
        return [logits, *auxiliary]

    outputs, vjp, *_ = torch.func.vjp(outputs_of, images)  # [N, K] each
    logits, *auxiliary = (output.detach() for output in outputs)
    target, derivatives = cost.derivatives(logits, auxiliary, labels, seed, offset)
    (grad,) = vjp(derivatives)
    return target, grad
