"""Losses on a class besides the cross-entropy, for attacks; they grow as the class becomes less likely."""

from __future__ import annotations

import math

import torch
from torch import Tensor

LOSSES = ("ce", "dlr", "margin")
_OFFSET = 1e-12  # added to the denominator of the DLR, as in the authors' code


def margin(logits: Tensor, target: Tensor) -> Tensor:
    """Return how much larger the largest logit of the other classes is than the target's (Carlini & Wagner, 2017).

    Args:
        logits: [N, K].
        target: [N] int64.

    Returns:
        [N], differentiable.
    """
    return _margin(logits, target, _ranked(logits))


def dlr(logits: Tensor, target: Tensor) -> Tensor:
    """Return the difference of logits ratio (Croce & Hein, 2020, equation 6).

    It is the :func:`margin` divided by the difference between the largest and the third largest logit, so that it
    depends neither on the logits' scale nor on a constant that is added to them.

    Args:
        logits: [N, K], with three classes or more.
        target: [N] int64.

    Returns:
        [N], differentiable.
    """
    ranked = _ranked(logits)
    spread = logits.gather(1, ranked[:, :1]) - logits.gather(1, ranked[:, 2:3])  # [N, 1]
    return _margin(logits, target, ranked) / (spread[:, 0] + _OFFSET)


def log_odds(logits: Tensor, target: Tensor) -> Tensor:
    """Return the log of (1 - p) / p, for the probability p of the target: [N].

    It grows with the cross-entropy, log(1 + exp(log odds)), and still tells apart two logits [N, K] that are so
    confident that their cross-entropy rounds to zero.
    """
    others = logits.scatter(1, target[:, None], -math.inf).logsumexp(dim=1)  # [N]
    return others - logits.gather(1, target[:, None])[:, 0]


def _ranked(logits: Tensor) -> Tensor:  # [N, K]
    """Return the classes by their logits, the largest first; of equal ones the first, which alone has a derivative."""
    return logits.detach().argsort(dim=1, descending=True, stable=True)


def _margin(logits: Tensor, target: Tensor, ranked: Tensor) -> Tensor:  # [N, K], [N], [N, K] -> [N]
    target = target[:, None]  # [N, 1]
    other = torch.where(ranked[:, :1] == target, ranked[:, 1:2], ranked[:, :1])  # [N, 1]
    return (logits.gather(1, other) - logits.gather(1, target))[:, 0]
