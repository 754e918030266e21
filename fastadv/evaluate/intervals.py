"""Proportions with their confidence intervals: Wilson's, and by its name the paper's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

Z_95 = 1.96  # 97.5 % quantile of the standard normal distribution


@dataclass(frozen=True)
class Proportion:
    """A fraction in [0, 1] with its 95 % confidence interval; all are fractions.

    Args:
        value: the fraction.
        half_width: of the paper's interval, ``value ± half_width``, which is not what is shown.
        low: where Wilson's interval begins.
        high: where it ends.
    """

    value: float
    half_width: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{100 * self.value:.1f}% [{100 * self.low:.1f}-{100 * self.high:.1f}]"


def proportion(successes: int, n: int) -> Proportion:
    """The fraction ``successes / n`` with its 95 % confidence interval, Wilson's score interval.

    The paper's, ``p ± 1.96 sqrt(p (1 - p) / n)`` in the footnote of its Table 5, is there beside it, for comparison
    with the paper's numbers alone. It does not hold near 0 and 1: a true accuracy of 0.001 lies in the interval of
    1,000 images in 63 % of cases, in that of 500 in 39 %; and where no image was right, its width is 0.

    Args:
        successes: how many of the examples count, e.g. were classified correctly.
        n: how many examples there were.

    Raises:
        ValueError: n below 1, or successes outside [0, n].
    """
    found = wilson(successes, n)
    p = found.value
    return Proportion(p, Z_95 * math.sqrt(p * (1 - p) / n), found.low, found.high)


# --- intervals for comparisons ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Estimate:
    """A figure with the ends of its confidence interval."""

    value: float
    low: float
    high: float


UNKNOWN = Estimate(math.nan, math.nan, math.nan)  # of nothing


def wilson(successes: int, n: int, z: float = Z_95) -> Estimate:
    """The fraction ``successes / n`` with Wilson's score interval, which holds at 0 and 1, too (Wilson, 1927).

    At z = 1.96 it covers the true fraction in 95 % of cases in the mean. Of thirty examples and more that is 91.5 % or
    more wherever one success and one failure are to be expected, and 83.7 % or more everywhere. Of fewer examples it is
    less: 83.1 % or more of five, 79.3 % or more of one.

    Args:
        successes: how many of the examples count.
        n: how many examples there were.
        z: quantile of the standard normal distribution; 1.96 gives 95 %.

    Raises:
        ValueError: n below 1, or successes outside [0, n].
    """
    if n < 1:
        raise ValueError(f"n must be at least 1, got {n}: there is no accuracy over no examples")
    if not 0 <= successes <= n:
        raise ValueError(f"successes must be in [0, n], got {successes} of n = {n}")
    p = successes / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    reach = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    # The exact ends at 0 and 1, where rounding would leave 1e-17 between.
    return Estimate(p, 0.0 if successes == 0 else centre - reach, 1.0 if successes == n else centre + reach)


def quantile(comparisons: int = 1) -> float:
    """Of the standard normal distribution, for two-sided intervals that all hold together at 95 % (Bonferroni)."""
    return NormalDist().inv_cdf(1 - 0.025 / comparisons)


def phi(both: int, one: int, other: int, n: int) -> float:
    """The correlation of two answers, yes or no, to each of n examples: the phi coefficient.

    A positive one is made smaller by Newcombe's (1998, paired data, method 10) correction for continuity, and may
    become 0; it is 0 where an answer is always the same.

    Args:
        both: examples with yes in both.
        one: with yes in the first.
        other: with yes in the second.
        n: examples.
    """
    variances = one * (n - one) * other * (n - other)
    if variances == 0:
        return 0.0
    excess = n * both - one * other
    return (max(excess - n / 2, 0) if excess > 0 else excess) / math.sqrt(variances)


def combination(terms: Sequence[tuple[float, Estimate]], correlations: Sequence[Sequence[float]] = ()) -> Estimate:
    """The sum of weighted estimates, such as a difference, with an interval made of theirs (Zou and Donner, 2008).

    Of two fractions with Wilson's intervals and the weights 1 and -1 it is method 10 of Newcombe (1998): of his paper
    on independent samples and, with :func:`phi` as their correlation, of the one on paired samples.

    Args:
        terms: weights and estimates.
        correlations: between each two of the estimates [terms, terms]; none if they are independent.
    """
    value = sum(weight * term.value for weight, term in terms)
    # How far each term alone can move the sum down and up, with the sign of its weight.
    below = [weight * (term.value - term.low if weight > 0 else term.high - term.value) for weight, term in terms]
    above = [weight * (term.high - term.value if weight > 0 else term.value - term.low) for weight, term in terms]
    return Estimate(value, value - _reach(below, correlations), value + _reach(above, correlations))


def _reach(moves: Sequence[float], correlations: Sequence[Sequence[float]]) -> float:
    """How far the sum goes: the root of the sum of ``rho_ij a_i a_j``."""
    square = sum(a * a for a in moves)
    for i, row in enumerate(correlations):
        square += sum(rho * moves[i] * moves[j] for j, rho in enumerate(row) if j != i)
    return math.sqrt(max(0.0, square))  # estimated one by one, correlations need not fit each other


def ratio(above: Estimate, below: Estimate, correlation: float = 0.0) -> Estimate:
    """The quotient of two estimates with an interval made of theirs (Donner and Zou, 2012).

    Of a denominator whose interval reaches 0, nothing is known: :data:`UNKNOWN`.
    """
    if not below.low > 0:
        return UNKNOWN
    product = above.value * below.value

    def end(one: float, other: float, sign: int) -> float:
        middle = product - correlation * (above.value - one) * (other - below.value)
        denominator = other * (2 * below.value - other)
        root = math.sqrt(max(0.0, middle**2 - one * (2 * above.value - one) * denominator))
        return (middle + sign * root) / denominator

    return Estimate(above.value / below.value, end(above.low, below.high, -1), end(above.high, below.low, 1))
