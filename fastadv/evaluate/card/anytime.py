"""A 95 % interval for the accuracy on a whole set that holds at all times while its images are drawn one by one."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

from fastadv.evaluate.intervals import Estimate

LEVEL = 0.05  # probability that the interval ever leaves out the accuracy on the whole set


@lru_cache(maxsize=256)
def anytime_interval(correct: int, n: int, total: int) -> Estimate:
    """Compute the interval from the first ``n`` of ``total`` images in random order, ``correct`` of them right.

    The sequence of intervals is that of Waudby-Smith and Ramdas (2020, "Confidence sequences for sampling without
    replacement", section 2) with a uniform prior: the ratio of prior to posterior probability of the true number K of
    correct images is a martingale under K, so by Ville's inequality it reaches 1 / 0.05 at any time with a probability
    of at most 0.05. The posterior is ``C(K, k) C(N - K, n - k) / C(N + 1, n + 1)``, so the interval has the numbers K
    for which

        C(K, k) C(N - K, n - k) > 0.05 C(N + 1, n + 1) / (N + 1).

    It may be looked at after each image, and a stop that depends on it does not spoil it, unlike Wilson's. It is about
    the accuracy on these ``total`` images, and it is a point once all were drawn.

    Args:
        correct: number of images that were right.
        n: number of images that were drawn, without replacement.
        total: number of images in the set.

    Raises:
        ValueError: if the numbers are impossible.
    """
    if not 0 <= correct <= n <= total or n < 1:
        raise ValueError(f"impossible counts: {correct} correct of {n} drawn from {total}")
    wrong = n - correct
    # [K]: those that the draws leave possible
    true = torch.arange(correct, total - wrong + 1, dtype=torch.float64, device="cpu")
    posterior = _log_choose(true, correct) + _log_choose(total - true, wrong)  # [K], up to a constant
    choices = float(_log_choose(torch.tensor(total + 1.0, dtype=torch.float64, device="cpu"), n + 1))
    least = math.log(LEVEL / (total + 1)) + choices
    # The posterior has a single peak, so this is an interval; it is not empty, since the mean of the posterior over
    # these K is above the prior.
    inside = true[posterior > least]
    return Estimate(correct / n, float(inside[0]) / total, float(inside[-1]) / total)


def is_within(correct: int, n: int, total: int, points: float) -> bool:
    """Whether both ends of the interval are within so many percentage points of the accuracy so far."""
    found = anytime_interval(correct, n, total)
    return max(found.value - found.low, found.high - found.value) <= points / 100


def _log_choose(above: Tensor, below: int) -> Tensor:
    return torch.lgamma(above + 1) - math.lgamma(below + 1) - torch.lgamma(above - below + 1)
