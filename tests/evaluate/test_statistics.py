from __future__ import annotations

import pytest

from fastadv.evaluate.statistics import Estimate, combination, proportion, ratio, rule_of_three, wilson


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
    [(972, 1000, "97.2% ±1.0"), (50, 100, "50.0% ±9.8"), (0, 10, "0.0% ±0.0"), (10, 10, "100.0% ±0.0")],
)
def test_text(successes: int, n: int, text: str) -> None:
    assert str(proportion(successes, n)) == text


@pytest.mark.parametrize(("n", "bound"), [(2, 1.0), (6, 0.5), (1000, 0.003)])
def test_rule_of_three(n: int, bound: float) -> None:
    assert rule_of_three(n) == bound
    assert n < 6 or (1 - bound) ** n <= 0.05


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


def test_ratios() -> None:
    estimate = ratio(wilson(600, 1000), wilson(900, 1000))
    assert estimate.value == pytest.approx(2 / 3)
    # The logarithm's interval by the delta method, which is close for so many.
    spread = 1.96 * (0.4 / 600 + 0.1 / 900) ** 0.5
    assert (estimate.low, estimate.high) == pytest.approx(
        (2 / 3 * 2.718281828**-spread, 2 / 3 * 2.718281828**spread), abs=2e-3
    )
    assert ratio(wilson(0, 50), wilson(40, 50)).low == 0
    with pytest.raises(ValueError, match="denominator that is not 0"):
        ratio(wilson(10, 50), wilson(0, 50))
