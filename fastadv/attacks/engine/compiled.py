"""Forward pass, target and gradient to the images as one function of torch.compile."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from types import FunctionType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

from fastadv.utils.compile_errors import is_refusal, reason_of
from fastadv.utils.stacklevel import caller_level

if TYPE_CHECKING:
    from fastadv.attacks.gradient import GradientAttack


class Compiled:
    """The compiled gradient of one attack's model, until the first failure.

    Both passes are in one graph, without the boundary that autograd puts between them: the compiler sees which
    activations the backward pass reads, and keeps or computes them anew as it sees fit.
    """

    def __init__(self) -> None:
        self._function: Any = None
        self._failed = False
        self._reason: str | None = None  # of a failure that may be the model's own

    def __reduce__(self) -> tuple[type[Compiled], tuple[()]]:
        return Compiled, ()  # what was compiled stays where it was

    def __call__(self, *call: Any) -> tuple[Tensor, Tensor] | None:
        """What :func:`_gradient` returns for these arguments; None where it must be eager."""
        # torch.compile does not compile under a mode that sees every operator, which wants to see them.
        if self._failed or is_in_torch_dispatch_mode(include_infra_modes=False):
            return None
        if self._function is None:
            # Recompilations are counted by the code object, which attacks of other models must not use up.
            own = FunctionType(_gradient.__code__.replace(), _gradient.__globals__)
            self._function = torch.compile(own, fullgraph=True)
        try:
            result: tuple[Tensor, Tensor] = self._function(*call)
            return result
        except Exception as error:
            if not is_refusal(error):
                raise
            self._reason = reason_of(error)
            return None

    def eager_worked(self, attack: GradientAttack) -> None:
        """If what was just computed could not be compiled, the compiler is to blame: give up, and say so."""
        if self._reason is not None:
            warnings.warn(f"{attack.name} runs without compile=True: {self._reason}", stacklevel=caller_level())
            self._failed, self._reason = True, None


def _gradient(
    attack: GradientAttack,
    model: Callable[..., Any],
    images: Tensor,
    rule: str,
    labels: Tensor | None,
    seed: int | Tensor,
    offset: int,
) -> tuple[Tensor, Tensor]:
    """What ``attack._input_gradient`` returns, for images [N, C, ...] and labels [N]."""

    def heads(x: Tensor) -> list[Tensor]:
        logits, auxiliary = attack.heads(model, x.clone())  # which the model may write to
        return [logits, *auxiliary]

    outputs, vjp, *_ = torch.func.vjp(heads, images)  # [N, K] each
    logits, *auxiliary = (output.detach() for output in outputs)
    target, derivatives = attack.derivatives(logits, auxiliary, rule, labels, seed, offset)
    (grad,) = vjp(derivatives)
    return target, grad
