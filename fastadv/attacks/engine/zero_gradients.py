"""Images whose gradient is zero or not finite: an attack does little or nothing to them, and the model looks robust."""

from __future__ import annotations

import math
import warnings

import torch
from torch import Tensor

from fastadv.utils.stacklevel import user_stacklevel

LEAST_SHARE = 0.01  # of the images that makes a warning: fewer change an accuracy by less than its interval


def without_gradient(grad: Tensor) -> Tensor:
    """How many examples of a gradient [N, C, ...] have zeros alone in it, or a value that is not finite: a scalar.

    Few gradients are exactly zero by themselves, where units of ReLU are all off; the operators' derivatives of a cost
    do not underflow. A model that rounds its input, or whose outputs saturate, makes all of them so.
    """
    largest = torch.linalg.vector_norm(grad, math.inf, tuple(range(1, grad.dim())))  # [N], NaN if one is
    count: Tensor = (~((largest > 0) & (largest < math.inf))).sum()
    return count


def warn_of_zero_gradients(attack: str, count: int, n: int) -> bool:
    """Warn if ``count`` of ``n`` images are too many; returns whether they are."""
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
    """The counts of an attack's calls, added up where they are, and read once."""

    def __init__(self) -> None:
        self._sum: Tensor | None = None  # scalar

    def add(self, count: Tensor | None) -> None:
        """A call's count, if it counted: a scalar on its device."""
        if count is not None:
            self._sum = count if self._sum is None else self._sum + count

    def total(self) -> int | None:
        """How many; None if nothing was counted."""
        return None if self._sum is None else int(self._sum)
