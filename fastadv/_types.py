"""Return types shared by the fused operators and their reference."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class TargetGrad(NamedTuple):
    """Result of :func:`fastadv.ops.target_grad`."""

    target: Tensor  # [N] int64
    dlogits: Tensor  # [N, K]


class ScaledKLGrad(NamedTuple):
    """Result of :func:`fastadv.ops.scaled_kl_grad`: the derivative is dlogits * 2**exponent."""

    dlogits: Tensor  # [N, K]
    exponent: Tensor  # [N] int32


class ScaledTargetGrad(NamedTuple):
    """Result of :func:`fastadv.ops.scaled_target_grad`: the derivative is dlogits * 2**exponent."""

    target: Tensor  # [N] int64
    dlogits: Tensor  # [N, K]
    exponent: Tensor  # [N] int32
