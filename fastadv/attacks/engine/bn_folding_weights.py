"""The arithmetic of folding, for all pairs of layers at once, so that a GPU needs few launches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

_Lists = Callable[[list[Tensor], list[Tensor]], Sequence[Tensor]]


def fold_weights(
    convolutions: Sequence[Any], batch_norms: Sequence[Any], weights: list[Tensor], biases: list[Tensor]
) -> None:
    """Fill folded weights [F, C / groups, ...] and biases [F] from the layers' current ones; call it under no_grad.

    BatchNorm of a convolution's output is ``scale * (weight * x + bias - mean) + shift``, where ``scale`` is
    BatchNorm's weight over the standard deviation, and ``shift`` its bias.
    """
    variances = [layer.running_var for layer in batch_norms]
    scales = list(torch._foreach_rsqrt(torch._foreach_add(variances, [layer.eps for layer in batch_norms])))  # [F] each
    _apply(torch._foreach_mul, scales, [layer.weight for layer in batch_norms])
    offsets = list(torch._foreach_neg([layer.running_mean for layer in batch_norms]))  # [F] each
    _apply(torch._foreach_add, offsets, [layer.bias for layer in convolutions])
    _copy_products(biases, offsets, scales, [layer.bias for layer in batch_norms])
    for weight, scale, layer in zip(weights, scales, convolutions, strict=True):
        torch.mul(layer.weight, scale.view(-1, *[1] * (weight.dim() - 1)), out=weight)


def _apply(operator: _Lists, values: list[Tensor], others: Sequence[Tensor | None]) -> None:
    """Replace each value by the operator's result for it and the other at its place; keep it if that is None."""
    places = [place for place, other in enumerate(others) if other is not None]
    if places:
        made = operator([values[place] for place in places], [other for other in others if other is not None])
        for place, value in zip(places, made, strict=True):
            values[place] = value


def _copy_products(
    to: list[Tensor], offsets: list[Tensor], scales: list[Tensor], shifts: Sequence[Tensor | None]
) -> None:
    """to <- shift + offset * scale, all [F]; a shift may be missing."""
    given = [shift for shift in shifts if shift is not None]
    if len(given) == len(to):
        torch._foreach_copy_(to, torch._foreach_addcmul(given, offsets, scales))
        return
    products = list(torch._foreach_mul(offsets, scales))
    _apply(torch._foreach_add, products, shifts)
    torch._foreach_copy_(to, products)
