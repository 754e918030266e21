"""Counts images whose gradient is zero or not finite: attacks hardly change them, and the model looks robust."""

from __future__ import annotations

import math
import warnings

import torch
from torch import Tensor

from fastadv.utils.stacklevel import user_stacklevel

LEAST_SHARE = 0.01  # of the images, for a warning: fewer change an accuracy by less than its interval


def count_zero_gradients(grad: Tensor) -> Tensor:
    """Count the examples whose gradient [N, C, ...] is all zeros or not finite; returns a scalar tensor.

    Normally few gradients are exactly zero, if all ReLU units are off: the operators' derivatives do not underflow. If
        a
    model rounds its input, or its outputs saturate, all gradients are zero.
    """
    largest = torch.linalg.vector_norm(grad, math.inf, tuple(range(1, grad.dim())))  # [N], NaN if one is
    count: Tensor = (~((largest > 0) & (largest < math.inf))).sum()
    return count


def warn_of_zero_gradients(attack: str, count: int, n: int) -> bool:
    """Warn if ``count`` of ``n`` images are too many; return true if so."""
    if count < LEAST_SHARE * n or count == 0:
        return False
    warnings.warn(
        f"{attack}: the gradient is zero or not finite for {count:,} of {n:,} images, so the attack does little or "
        f"nothing to them, and the model looks more robust than it is. Does it round, quantize, detach or saturate "
        f"something between the images and the logits? A last layer whose weights are all zero, as at the start of "
        f"fine-tuning, has none either.",
        stacklevel=user_stacklevel(),
    )
    return True


class ZeroGradientCount:
    """Sums the counts of an attack's calls on their device, to be read once."""

    def __init__(self) -> None:
        self._sum: Tensor | None = None  # scalar

    def add(self, count: Tensor | None) -> None:
        """Add a call's count, a scalar tensor, if it counted."""
        if count is not None:
            self._sum = count if self._sum is None else self._sum + count

    def total(self) -> int | None:
        """Return the sum; None if nothing was counted."""
        return None if self._sum is None else int(self._sum)
