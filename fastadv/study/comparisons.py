"""Figures from shares of images: fractions, differences and quotients, each with an interval for any quantile z."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from fastadv.evaluate.intervals import UNKNOWN, Estimate, combination, phi, ratio, wilson
from fastadv.study.results import Share

Quantity = Callable[[float], Estimate]
"""Of a quantile z of the standard normal distribution: 1.96 gives the 95 % interval."""


def share(found: Share) -> Quantity:
    """A fraction with Wilson's interval; of nothing, such as the images of a source that none fooled, it is unknown."""
    return lambda z: wilson(found.successes, found.n, z) if found.n else UNKNOWN


def total(terms: Sequence[tuple[float, Share]]) -> Quantity:
    """A weighted sum of fractions; those of the same images are correlated as their hits are, others independent."""
    correlations = [[correlation(one, other) for _, other in terms] for _, one in terms]
    return lambda z: combination([(weight, share(found)(z)) for weight, found in terms], correlations)


def gain(one: Share, other: Share) -> Quantity:
    """By how much the first fraction is larger."""
    return total([(1, one), (-1, other)])


def quotient(one: Share, other: Share) -> Quantity:
    """The first fraction by the second."""
    together = correlation(one, other)
    return lambda z: ratio(share(one)(z), share(other)(z), together)


def difference(one: Quantity, other: Quantity) -> Quantity:
    """By how much the first figure is larger, as if they were independent.

    Figures of the same images rise and fall together: the interval is then wider than it need be.
    """
    return lambda z: combination([(1, one(z)), (-1, other(z))])


def correlation(one: Share, other: Share) -> float:
    """Of the hits of two shares; 0 if they are of different images, or it is not known which images were hit."""
    if one.hits is None or other.hits is None or (one.images, one.n) != (other.images, other.n):
        return 0.0
    return phi(int(np.count_nonzero(one.hits & other.hits)), one.successes, other.successes, one.n)
