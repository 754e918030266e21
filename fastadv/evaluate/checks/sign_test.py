"""Exact tests of counts: a check speaks only of what chance explains in at most one case of a hundred."""

from __future__ import annotations

import math

from torch import Tensor

LEVEL = 0.01  # probability of a false alarm where there is nothing to see
NEGLIGIBLE = 0.01  # share of images that changes an accuracy by less than its interval


def binomial_tail(count: int, n: int, share: float) -> float:
    """Probability that at least ``count`` of ``n`` images have a property that a ``share`` of all images has."""
    return math.fsum(math.comb(n, k) * share**k * (1 - share) ** (n - k) for k in range(count, n + 1))


def more_than_negligible(count: int, n: int) -> bool:
    """Whether so many of ``n`` images show that the property is not limited to 1 % of all images."""
    return binomial_tail(count, n, NEGLIGIBLE) <= LEVEL


def fewer_than(count: int, n: int, share: float) -> bool:
    """Whether so few of ``n`` images show that fewer than ``share`` of all images have the property."""
    return binomial_tail(n - count, n, 1 - share) <= LEVEL


def beats(one: Tensor, other: Tensor, comparisons: int = 1) -> bool:  # [m] bool each
    """Whether ``one`` fools more images than ``other``, by McNemar's exact test in one direction.

    Only images that one of them fools and the other does not count; if both were equally strong, either would be as
    likely. At least seven such images are needed.

    Args:
        one: the images that are fooled.
        other: those that the other attack fools.
        comparisons: tests in which there shall be no false alarm (Bonferroni).
    """
    alone, other_alone = only(one, other), only(other, one)
    return binomial_tail(alone, alone + other_alone, 0.5) <= LEVEL / comparisons


def only(one: Tensor, other: Tensor) -> int:  # [m] bool each
    """Number of images that ``one`` fools and ``other`` does not."""
    return int((one & ~other).sum())
