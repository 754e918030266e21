"""Proportions with the paper's confidence interval."""

from __future__ import annotations

import math
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
