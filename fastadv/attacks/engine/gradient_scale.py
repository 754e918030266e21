"""Brings scaled derivatives, or gradients, to a common scale, so that they can be added."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from fastadv.ops import ScaledTargetGrad


def to_common_scale(
    outputs: Sequence[ScaledTargetGrad], weights: Sequence[float], whole_batch: bool = False
) -> tuple[list[Tensor], Tensor]:
    """Return each output's weight times its derivative [N, K], over a power of two that all outputs share.

    The largest weighted derivative is then below 1, so that it neither overflows nor vanishes.

    Args:
        outputs: scaled derivatives for one model and batch.
        weights: of the outputs in the cost.
        whole_batch: use one power of two for all examples instead of one for each.

    Returns:
        The scaled derivatives, and the exponents [N] of the power of two.
    """
    parts = [math.frexp(weight) for weight in weights]  # weight = mantissa * 2**power
    exponents = torch.stack(
        [output.exponent + power for output, (_, power) in zip(outputs, parts, strict=True)]
    )  # [outputs, N]
    common = exponents.amax() if whole_batch else exponents.amax(dim=0)  # scalar or [N]
    scaled = []
    for output, (mantissa, _), down in zip(outputs, parts, exponents - common, strict=True):
        dtype = output.dlogits.dtype
        factor = mantissa * torch.exp2(down.to(torch.promote_types(dtype, torch.float32)))  # [N]
        scaled.append((factor[:, None] * output.dlogits).to(dtype))
    return scaled, common.expand(exponents.shape[1])


def add_scaled(one: Tensor, exponent: Tensor, other: Tensor, other_exponent: Tensor) -> tuple[Tensor, Tensor]:
    """Add gradients [N, C, ...] that are multiplied by 2**exponent [N] each; return the sum, and its exponents [N]."""
    common = torch.maximum(exponent, other_exponent)
    wide = torch.promote_types(one.dtype, torch.float32)
    by_example = (-1, *[1] * (one.dim() - 1))
    parts = [
        grad.to(wide) * torch.exp2((power - common).to(wide)).view(by_example)
        for grad, power in ((one, exponent), (other, other_exponent))
    ]
    return parts[0] + parts[1], common
