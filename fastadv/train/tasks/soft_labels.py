"""Soft labels: a distribution over the classes for each image, as Mixup and CutMix create."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fastadv import ops, reference

_TOLERANCE = 0.01  # rounding of a row's sum in half precision


def are_soft(labels: Tensor) -> bool:
    """Whether labels are [m, K] probabilities rather than classes [m]."""
    return labels.is_floating_point() and labels.dim() == 2 and labels.shape[1] > 1


def check_distributions(labels: Tensor) -> None:  # [m, K]
    """Check that the rows of soft labels are distributions, not logits, percentages or several classes at once.

    On a GPU they are not read, to avoid a wait; there, the loss becomes NaN.

    Raises:
        ValueError: if they are not.
    """
    if labels.is_cuda or _are_distributions(labels):
        return
    sums = labels.sum(dim=1)  # [m]
    raise ValueError(
        f"soft labels must be probabilities, non-negative rows that sum to 1, got {float(labels.min()):.4g} to "
        f"{float(labels.max()):.4g} in rows that sum to {float(sums.min()):.4g} to {float(sums.max()):.4g}"
    )


def mixed_cross_entropy(logits: Tensor, labels: Tensor, k: int, lambda_: float, label_smoothing: float) -> Tensor:
    """The paper's loss of logits [m, K] for labels [m] or soft labels [m, K]; see ``ops.mixed_cross_entropy``.

    Raises:
        ValueError: if soft labels have another number of classes, or no example has a weight.
    """
    if not are_soft(labels):
        return ops.mixed_cross_entropy(logits, labels, k, lambda_, label_smoothing)
    if labels.shape != logits.shape:
        raise ValueError(f"soft labels must be {list(logits.shape)}, like the logits, got {list(labels.shape)}")
    if len(labels) == k and not lambda_:
        raise ValueError(f"the loss has no weight: all {k} examples are adversarial, and lambda_ is 0")
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))  # [m, K]
    loss = reference.mixed_cross_entropy(wide, labels.to(wide.dtype), k, lambda_, label_smoothing)
    return loss * torch.where(_are_distributions(labels), 1.0, math.nan)


def _are_distributions(labels: Tensor) -> Tensor:  # [m, K] -> []
    return (labels >= 0).all() & ((labels.sum(dim=1, dtype=torch.float64) - 1).abs() < _TOLERANCE).all()
