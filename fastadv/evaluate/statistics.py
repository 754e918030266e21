"""Proportions with the paper's confidence interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

Z_95 = 1.96  # 97.5 % quantile of the standard normal distribution


@dataclass(frozen=True)
class Proportion:
    """A fraction in [0, 1] and half the width of its 95 % confidence interval, a fraction too."""

    value: float
    half_width: float

    def __str__(self) -> str:
        return f"{100 * self.value:.1f}% ±{100 * self.half_width:.1f}"


def proportion(successes: int, n: int) -> Proportion:
    """The fraction ``successes / n`` with its 95 % confidence interval from the standard error of the mean.

    ``p ± 1.96 sqrt(p (1 - p) / n)``, as in the footnote of the paper's Table 5. It is degenerate at p = 0 and p = 1,
    where its width is 0 although the true accuracy need not be exactly that; it is reported as it comes out, because
    it is compared with the paper's numbers.

    Args:
        successes: how many of the examples count, e.g. were classified correctly.
        n: how many examples there were.

    Raises:
        ValueError: n below 1, or successes outside [0, n].
    """
    if n < 1:
        raise ValueError(f"n must be at least 1, got {n}: there is no accuracy over no examples")
    if not 0 <= successes <= n:
        raise ValueError(f"successes must be in [0, n], got {successes} of n = {n}")
    p = successes / n
    return Proportion(p, Z_95 * math.sqrt(p * (1 - p) / n))


def rule_of_three(n: int) -> float:
    """How far from 0, at 95 % confidence, a proportion is at most of which none of ``n`` examples was seen.

    ``(1 - p)^n = 0.05`` at about ``p = 3 / n``, since ``-log(0.05)`` is 3.00. The same holds from 1 if all were seen.
    """
    return min(1.0, 3 / n)


# --- intervals for comparisons ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Estimate:
    """A figure with the ends of its confidence interval."""

    value: float
    low: float
    high: float


def wilson(successes: int, n: int, z: float = Z_95) -> Estimate:
    """The fraction ``successes / n`` with Wilson's score interval, which holds at 0 and 1, too (Wilson, 1927).

    Args:
        successes: how many of the examples count.
        n: how many examples there were.
        z: quantile of the standard normal distribution; 1.96 gives 95 %.

    Raises:
        ValueError: as for :func:`proportion`.
    """
    p = proportion(successes, n).value
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    reach = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    # The exact ends at 0 and 1, where rounding would leave 1e-17 between.
    return Estimate(p, 0.0 if successes == 0 else centre - reach, 1.0 if successes == n else centre + reach)


def combination(terms: Sequence[tuple[float, Estimate]]) -> Estimate:
    """The sum of weighted independent estimates, such as a difference, with an interval made of theirs.

    Of two fractions with Wilson's intervals and the weights 1 and -1 it is Newcombe's (1998); for any number of terms,
    Zou and Donner's (2008). Accuracies on the same images are not independent but rise and fall together: the interval
    of their difference is then wider than it need be.
    """
    value = sum(weight * term.value for weight, term in terms)
    below = [(term.value - term.low) if weight > 0 else (term.high - term.value) for weight, term in terms]
    above = [(term.high - term.value) if weight > 0 else (term.value - term.low) for weight, term in terms]
    weights = [weight for weight, _ in terms]
    low, high = (math.hypot(*(w * reach for w, reach in zip(weights, side, strict=True))) for side in (below, above))
    return Estimate(value, value - low, value + high)


def ratio(above: Estimate, below: Estimate) -> Estimate:
    """The quotient of two independent estimates with an interval made of theirs (Donner and Zou, 2012).

    Raises:
        ValueError: a denominator whose interval reaches 0.
    """
    if below.low <= 0:
        raise ValueError(f"a ratio needs a denominator that is not 0, got the interval [{below.low}, {below.high}]")
    product = above.value * below.value

    def end(one: float, other: float, sign: int) -> float:
        denominator = other * (2 * below.value - other)
        root = math.sqrt(max(0.0, product**2 - one * (2 * above.value - one) * denominator))
        return (product + sign * root) / denominator

    return Estimate(above.value / below.value, end(above.low, below.high, -1), end(above.high, below.low, 1))
