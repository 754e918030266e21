from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binom, binomtest

from fastadv.evaluate.intervals import (
    UNKNOWN,
    Estimate,
    combination,
    phi,
    proportion,
    quantile,
    ratio,
    wilson,
)


@pytest.mark.parametrize(
    ("successes", "n", "value", "half_width"),
    [
        (50, 100, 0.5, 0.098),  # 1.96 * sqrt(0.25 / 100)
        (90, 100, 0.9, 0.0588),  # 1.96 * sqrt(0.09 / 100)
        (1, 4, 0.25, 0.42435244785437493),  # 1.96 * sqrt(0.1875 / 4)
        (25_000, 50_000, 0.5, 0.0043826932358995875),  # the paper's n: 1.96 * sqrt(0.25 / 50000)
        (0, 10, 0.0, 0.0),
        (10, 10, 1.0, 0.0),
        (1, 1, 1.0, 0.0),
    ],
)
def test_hand_computed(successes: int, n: int, value: float, half_width: float) -> None:
    result = proportion(successes, n)
    assert result.value == value
    assert result.half_width == pytest.approx(half_width, rel=1e-12)


@pytest.mark.parametrize(
    ("successes", "n", "text"),
    [(972, 1000, "97.2% [96.0-98.1]"), (0, 10, "0.0% [0.0-27.8]"), (10, 10, "100.0% [72.2-100.0]")],
)
def test_text(successes: int, n: int, text: str) -> None:
    assert str(proportion(successes, n)) == text


def coverage(low: np.ndarray, high: np.ndarray, p: float) -> float:
    """How often the interval of 0, 1, ..., n successes [n + 1] holds p: exactly, from the binomial distribution."""
    n = len(low) - 1
    return float(binom.pmf(np.arange(n + 1), n, p)[(low <= p) & (p <= high)].sum())


@pytest.mark.parametrize(
    ("n", "least", "least_of_likely"),
    [(1, 0.793, 1), (2, 0.819, 1), (4, 0.829, 0.874), (5, 0.831, 0.915), (30, 0.837, 0.915), (500, 0.838, 0.915)],
)
def test_how_often_an_interval_holds_the_true_fraction(n: int, least: float, least_of_likely: float) -> None:
    """Where it is least often: just beyond the ends of the intervals themselves; and in the mean over all fractions."""
    found = [proportion(successes, n) for successes in range(n + 1)]
    low, high = (np.array([getattr(one, end) for one in found]) for end in ("low", "high"))
    ends = np.concatenate([low, high])
    tried = np.concatenate([(np.arange(200) + 0.5) / 200, ends - 1e-9, ends + 1e-9])
    tried = tried[(tried > 0) & (tried < 1)]
    covered = np.array([coverage(low, high, p) for p in tried])
    expected = n * np.minimum(tried, 1 - tried)
    assert 0 <= covered.min() - least < 0.001
    assert 0 <= covered[expected >= 1].min(initial=1) - least_of_likely < 0.001
    assert 0.945 <= covered[:200].mean() <= 0.965


@pytest.mark.parametrize(("n", "papers", "shown"), [(500, 0.393, 0.909), (1000, 0.632, 0.919)])
def test_the_papers_interval_does_not_hold_near_0_and_1(n: int, papers: float, shown: float) -> None:
    found = [proportion(successes, n) for successes in range(n + 1)]
    value, half, low, high = (
        np.array([getattr(one, name) for one in found]) for name in ("value", "half_width", "low", "high")
    )
    for p in (0.001, 0.999):
        assert coverage(value - half, value + half, p) == pytest.approx(papers, abs=1e-3)
        assert coverage(low, high, p) == pytest.approx(shown, abs=1e-3)


@pytest.mark.parametrize(("successes", "n"), [(0, 7), (1, 7), (500, 1000), (49_999, 50_000), (3, 3)])
def test_the_interval_is_that_of_scipy(successes: int, n: int) -> None:
    theirs, ours = binomtest(successes, n).proportion_ci(method="wilson"), proportion(successes, n)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), rel=1e-4, abs=1e-12)


@pytest.mark.parametrize(("successes", "n", "names"), [(0, 0, "n"), (-1, 5, "successes"), (6, 5, "successes")])
def test_refuses(successes: int, n: int, names: str) -> None:
    with pytest.raises(ValueError, match=f"^{names} must"):
        proportion(successes, n)


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),  # Newcombe (1998), table I
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (29, 29, 0.8830, 1.0),
    ],
)
def test_wilson(successes: int, n: int, low: float, high: float) -> None:
    estimate = wilson(successes, n)
    assert estimate.value == successes / n
    assert (estimate.low, estimate.high) == pytest.approx((low, high), abs=1e-4)


@pytest.mark.parametrize(
    ("one", "other", "low", "high"),
    [
        ((56, 70), (48, 80), 0.0524, 0.3339),  # Newcombe (1998), table II, method 10
        ((9, 10), (3, 10), 0.1705, 0.8090),
        ((10, 10), (0, 10), 0.6075, 1.0),
        ((5, 56), (0, 29), -0.0381, 0.1926),
    ],
)
def test_differences(one: tuple[int, int], other: tuple[int, int], low: float, high: float) -> None:
    estimate = combination([(1, wilson(*one)), (-1, wilson(*other))])
    assert (estimate.low, estimate.high) == pytest.approx((low, high), abs=1e-4)


def test_a_combination_of_four_is_as_wide_as_its_parts() -> None:
    part = Estimate(0.5, 0.47, 0.53)
    estimate = combination([(1, part), (-1, part), (-1, part), (1, part)])
    assert (estimate.value, estimate.low, estimate.high) == pytest.approx((0, -0.06, 0.06))


@pytest.mark.parametrize(("comparisons", "z"), [(1, 1.95996), (2, 2.24140), (5, 2.57583), (10, 2.80703)])
def test_quantiles_of_several_comparisons(comparisons: int, z: float) -> None:
    assert quantile(comparisons) == pytest.approx(z, abs=1e-5)


@pytest.mark.parametrize(
    ("both", "one", "other", "n", "value"),
    [
        (4, 5, 5, 10, (40 - 25 - 5) / 25),  # 10 / 25 after the correction by n / 2
        (3, 5, 5, 10, 0),  # 5 / 25, which the correction makes 0
        (2, 5, 5, 10, -5 / 25),  # not corrected
        (0, 5, 5, 10, -1),
        (10, 10, 5, 10, 0),  # one answer is always yes
        (0, 0, 5, 10, 0),
    ],
)
def test_phi_by_hand(both: int, one: int, other: int, n: int, value: float) -> None:
    assert phi(both, one, other, n) == phi(both, other, one, n) == pytest.approx(value)


def paired(e: int, f: int, g: int, h: int) -> tuple[list[tuple[float, Estimate]], list[list[float]]]:
    """A difference as Newcombe has it: yes in both, in the first alone, in the second alone, in neither."""
    n, one, other = e + f + g + h, e + f, e + g
    rho = phi(e, one, other, n)
    return [(1, wilson(one, n)), (-1, wilson(other, n))], [[1, rho], [rho, 1]]


@pytest.mark.parametrize(
    ("counts", "low", "high"),
    [
        ((36, 12, 2, 0), 0.0569, 0.3404),  # Newcombe (1998, paired data), table III, method 10
        ((18, 12, 2, 18), 0.0562, 0.3290),
        ((53, 0, 0, 1), -0.0729, 0.0729),
        ((0, 30, 0, 0), 0.8395, 1.0),
    ],
)
def test_paired_differences(counts: tuple[int, int, int, int], low: float, high: float) -> None:
    estimate = combination(*paired(*counts))
    assert (estimate.low, estimate.high) == pytest.approx((low, high), abs=1e-4)


def test_correlations_add_by_sign() -> None:
    part, rho = Estimate(0.5, 0.47, 0.53), [[1, 0.5], [0.5, 1]]
    apart, together = combination([(1, part), (-1, part)], rho), combination([(1, part), (1, part)], rho)
    assert (apart.low, apart.high) == pytest.approx((-0.03, 0.03))  # sqrt(2 - 2 * 0.5) * 0.03
    assert (together.low, together.high) == pytest.approx((1 - 0.03 * 3**0.5, 1 + 0.03 * 3**0.5))


def test_ratios() -> None:
    estimate = ratio(wilson(600, 1000), wilson(900, 1000))
    assert estimate.value == pytest.approx(2 / 3)
    # The logarithm's interval by the delta method, which is close for so many.
    spread = 1.96 * (0.4 / 600 + 0.1 / 900) ** 0.5
    assert (estimate.low, estimate.high) == pytest.approx(
        (2 / 3 * 2.718281828**-spread, 2 / 3 * 2.718281828**spread), abs=2e-3
    )
    assert ratio(wilson(0, 50), wilson(40, 50)).low == 0


def test_of_nothing_nothing_is_known() -> None:
    half = wilson(25, 50)
    for found in (
        ratio(half, wilson(0, 50)),
        ratio(half, UNKNOWN),
        ratio(UNKNOWN, half),
        combination([(1, half), (-1, UNKNOWN)]),
        combination([(1, half), (-1, UNKNOWN)], [[1, 0], [0, 1]]),
    ):
        assert all(map(math.isnan, (found.value, found.low, found.high)))


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.9])
def test_ratios_of_the_same_images(rho: float) -> None:
    """The ends solve the equation that they are made from: what the difference ``above - end * below`` leaves is 0."""
    above, below = wilson(600, 1000), wilson(900, 1000)
    found, correlations = ratio(above, below, rho), [[1, rho], [rho, 1]]
    low, high = (combination([(1, above), (-end, below)], correlations) for end in (found.low, found.high))
    assert low.low == pytest.approx(0, abs=1e-12) and high.high == pytest.approx(0, abs=1e-12)
    assert (found.high - found.low < ratio(above, below).high - ratio(above, below).low) is (rho > 0)


@pytest.mark.parametrize(("p", "q", "together"), [(0.9, 0.85, 0.84), (0.6, 0.55, 0.35), (0.98, 0.3, 0.298)])
def test_intervals_cover_what_they_should(p: float, q: float, together: float) -> None:
    """Of 2,000 draws of 500 images, right by two networks and by both with the given chances."""
    draws, n = 2000, 500
    chances = [together, p - together, q - together, 1 - p - q + together]
    found = np.random.default_rng(0).multinomial(n, chances, size=draws)  # [draws, 4]
    differences = ratios = 0
    for e, f, g, h in found.tolist():
        [(_, one), (_, other)], rho = terms = paired(e, f, g, h)
        difference, quotient = combination(*terms), ratio(one, other, rho[0][1])
        differences += difference.low <= p - q <= difference.high
        ratios += quotient.low <= p / q <= quotient.high
    # Four standard errors of 95 % below it; above, the correction for continuity makes them a little too wide.
    assert 0.93 < differences / draws < 0.985
    assert 0.93 < ratios / draws < 0.985
