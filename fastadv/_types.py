"""What operators return, shared by the fused ones and their reference."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class TargetGrad(NamedTuple):
    """What :func:`fastadv.ops.target_grad` returns."""

    target: Tensor  # [N] int64
    dlogits: Tensor  # [N, K]


class ScaledTargetGrad(NamedTuple):
    """What :func:`fastadv.ops.scaled_target_grad` returns: the derivative is dlogits * 2**exponent."""

    target: Tensor  # [N] int64
    dlogits: Tensor  # [N, K]
    exponent: Tensor  # [N] int32
