"""Fractions of images, their differences and ratios, each with an interval for any quantile z."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from fastadv.evaluate.intervals import UNKNOWN, Estimate, combination, phi, ratio, wilson
from fastadv.study.results import Share

Quantity = Callable[[float], Estimate]
"""Maps a quantile z of the standard normal distribution to an estimate; z = 1.96 gives the 95 % interval."""


def share(found: Share) -> Quantity:
    """A fraction with Wilson's interval; unknown if n is 0, as for transfer from a source that nothing fooled."""
    return lambda z: wilson(found.successes, found.n, z) if found.n else UNKNOWN


def weighted_sum(terms: Sequence[tuple[float, Share]]) -> Quantity:
    """A weighted sum of fractions. Fractions of the same images are correlated like their hits."""
    correlations = [[correlation(one, other) for _, other in terms] for _, one in terms]
    return lambda z: combination([(weight, share(found)(z)) for weight, found in terms], correlations)


def gain(one: Share, other: Share) -> Quantity:
    """How much larger the first fraction is."""
    return weighted_sum([(1, one), (-1, other)])


def quotient(one: Share, other: Share) -> Quantity:
    """The first fraction divided by the second."""
    together = correlation(one, other)
    return lambda z: ratio(share(one)(z), share(other)(z), together)


def difference(one: Quantity, other: Quantity) -> Quantity:
    """How much larger the first quantity is, treating the two as independent.

    Quantities of the same images rise and fall together, so that the interval is wider than necessary.
    """
    return lambda z: combination([(1, one(z)), (-1, other(z))])


def correlation(one: Share, other: Share) -> float:
    """Correlation between the hits of two shares; 0 for different images, or if the hits are not known."""
    if one.hits is None or other.hits is None or (one.images, one.n) != (other.images, other.n):
        return 0.0
    return phi(int(np.count_nonzero(one.hits & other.hits)), one.successes, other.successes, one.n)
