from __future__ import annotations

import pytest

from fastadv.evaluate import proportion
from fastadv.evaluate.statistics import rule_of_three


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
