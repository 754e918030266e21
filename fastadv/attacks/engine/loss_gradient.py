"""Differentiates a custom loss with respect to the logits by autograd, and scales it so that nothing underflows."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

from fastadv.ops import ScaledTargetGrad
from fastadv.reference import EXPONENT_OF_ZERO

Loss: TypeAlias = Callable[[Tensor, Tensor], Tensor]  # logits [N, K], target [N] or [N, K] -> [N]


def scaled_loss_grad(loss: Loss, logits: Tensor, target: Tensor) -> ScaledTargetGrad:
    """Compute for another loss what :func:`fastadv.ops.scaled_target_grad` computes for its costs.

    Half-precision logits are differentiated in float32, so that the loss does not underflow before it is scaled.

    Args:
        loss: of each example.
        logits: [N, K].
        target: [N] int64, or the logits of the clean images [N, K].

    Raises:
        ValueError: if the loss is not one differentiable number for each example.
    """
    if not torch.compiler.is_compiling() and target.is_inference():  # could not be saved for a gradient
        target = target.clone()
    if target.is_floating_point():
        target = target.to(torch.promote_types(target.dtype, torch.float32))
    wide = logits.detach().to(torch.promote_types(logits.dtype, torch.float32))  # [N, K]
    grad = _traced_grad(loss, wide, target) if torch.compiler.is_compiling() else _autograd(loss, wide, target)
    largest = grad.abs().amax(dim=1)  # [N], NaN if one is
    # A power that float32 can represent together with its inverse: a row of subnormal derivatives stays below 0.5.
    most = -math.frexp(torch.finfo(grad.dtype).tiny)[1]
    usable = (largest > 0) & (largest < math.inf)
    exponent = torch.where(usable, torch.frexp(largest).exponent.clamp(-most, most), 0)  # [N] int32
    dlogits = grad * torch.exp2(-exponent.to(grad.dtype))[:, None]  # [N, K]
    return ScaledTargetGrad(target, dlogits.to(logits.dtype), torch.where(largest == 0, EXPONENT_OF_ZERO, exponent))


def _autograd(loss: Loss, logits: Tensor, target: Tensor) -> Tensor:  # [N, K]
    with torch.enable_grad():
        losses = loss(logits.requires_grad_(), target)
    shape = losses.shape if isinstance(losses, Tensor) else None
    if shape != target.shape[:1] or not losses.requires_grad:
        raise ValueError(_message(loss, losses, len(target)))
    (grad,) = torch.autograd.grad(losses, logits, torch.ones_like(losses), allow_unused=True)
    if grad is None:
        raise ValueError(_message(loss, losses, len(target)))
    return grad


def _traced_grad(loss: Loss, logits: Tensor, target: Tensor) -> Tensor:  # [N, K]
    """Like :func:`_autograd`, in a form that torch.compile can trace; the first, eager batch has been checked."""
    losses, vjp, *_ = torch.func.vjp(lambda x: loss(x, target), logits)  # [N]
    grad: Tensor = vjp(torch.ones_like(losses))[0]
    return grad


def _message(loss: Loss, losses: object, n: int) -> str:
    name = getattr(loss, "__qualname__", "loss")
    got = type(losses).__name__
    if isinstance(losses, Tensor):
        got = f"a tensor {list(losses.shape)}" + ("" if losses.shape != (n,) else " that does not depend on the logits")
    hint = "; use reduction='none'" if isinstance(losses, Tensor) and losses.dim() == 0 else ""
    return f"{name} must return one differentiable number per example, [{n}], got {got}{hint}"
