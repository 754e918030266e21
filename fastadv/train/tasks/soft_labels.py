"""Labels that are a distribution over the classes for each image, as Mixup and CutMix make them."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fastadv import ops, reference

_ROUNDING = 0.01  # of a row's sum, in half precision


def are_soft(labels: Tensor) -> bool:
    """Whether labels are [m, K] probabilities rather than classes [m]."""
    return labels.is_floating_point() and labels.dim() == 2 and labels.shape[1] > 1


def check_distributions(labels: Tensor) -> None:  # [m, K]
    """Refuse soft labels whose rows are no distributions: logits, percentages, several classes at once.

    On a GPU they are not read ahead, but give a loss of NaN.

    Raises:
        ValueError: that.
    """
    if labels.is_cuda or _are_distributions(labels):
        return
    sums = labels.sum(dim=1)  # [m]
    raise ValueError(
        f"soft labels must be probabilities, rows of zero or more that sum to 1, got {float(labels.min()):.4g} to "
        f"{float(labels.max()):.4g} in rows that sum to {float(sums.min()):.4g} to {float(sums.max()):.4g}"
    )


def mixed_cross_entropy(logits: Tensor, labels: Tensor, k: int, lambda_: float, label_smoothing: float) -> Tensor:
    """The paper's loss of logits [m, K], by classes [m] or by soft labels [m, K]; see the operator of this name.

    Raises:
        ValueError: soft labels of another number of classes, or no example with weight.
    """
    if not are_soft(labels):
        return ops.mixed_cross_entropy(logits, labels, k, lambda_, label_smoothing)
    if labels.shape != logits.shape:
        raise ValueError(f"soft labels must be {list(logits.shape)}, as the logits are, got {list(labels.shape)}")
    if len(labels) == k and not lambda_:
        raise ValueError(f"the loss has no weight: all {k} examples are adversarial, and lambda_ is 0")
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))  # [m, K]
    loss = reference.mixed_cross_entropy(wide, labels.to(wide.dtype), k, lambda_, label_smoothing)
    return loss * torch.where(_are_distributions(labels), 1.0, math.nan)


def _are_distributions(labels: Tensor) -> Tensor:  # [m, K] -> []
    return (labels >= 0).all() & ((labels.sum(dim=1, dtype=torch.float64) - 1).abs() < _ROUNDING).all()
