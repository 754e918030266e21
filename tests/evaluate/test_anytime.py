from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from fastadv.evaluate.card.anytime import anytime_interval, is_within
from fastadv.evaluate.intervals import Estimate, wilson

TOTAL, BATCH, POINTS = 1000, 25, 3.0
RUNS = 1000


def draws(accuracy: float, seed: int) -> Tensor:
    """Correct images after each batch, in each of 1,000 random orders: [runs, batches]."""
    generator = torch.Generator().manual_seed(seed)
    correct = round(accuracy * TOTAL)
    order = torch.rand(RUNS, TOTAL, generator=generator).argsort(dim=1)  # [runs, N]
    return (order < correct).cumsum(dim=1)[:, BATCH - 1 :: BATCH]


def stopped(counts: Tensor) -> tuple[Estimate, int]:
    """The interval where the rule stops, and after how many images."""
    for batch, correct in enumerate(counts.tolist(), start=1):
        if is_within(correct, batch * BATCH, TOTAL, POINTS):
            return anytime_interval(correct, batch * BATCH, TOTAL), batch * BATCH
    raise AssertionError("the interval of all images is a point")


def holds(interval: Estimate, accuracy: float) -> bool:
    return interval.low - 1e-12 <= accuracy <= interval.high + 1e-12


@pytest.mark.parametrize("accuracy", [0.0, 0.02, 0.3, 0.5, 0.97])
def test_the_interval_at_the_stop_covers(accuracy: float) -> None:
    found = [stopped(counts) for counts in draws(accuracy, seed=1)]
    assert sum(holds(interval, accuracy) for interval, _ in found) >= 0.95 * RUNS
    assert all(interval.high - interval.low <= 2 * POINTS / 100 + 1e-12 for interval, _ in found)
    assert max(n for _, n in found) < TOTAL  # it saves something


@pytest.mark.parametrize("accuracy", [0.02, 0.3, 0.5])
def test_wilsons_looked_at_after_each_batch_does_not(accuracy: float) -> None:
    ours = naive = 0
    for counts in draws(accuracy, seed=2):
        looks = [(int(correct), batch * BATCH) for batch, correct in enumerate(counts.tolist(), start=1)]
        ours += all(holds(anytime_interval(*look, TOTAL), accuracy) for look in looks)
        naive += all(holds(wilson(*look), accuracy) for look in looks)
    assert ours >= 0.95 * RUNS
    assert naive < 0.95 * RUNS


@pytest.mark.parametrize(("correct", "n", "total"), [(3, 7, 12), (0, 5, 9), (5, 5, 9), (1, 1, 2)])
def test_agrees_with_exact_integers(correct: int, n: int, total: int) -> None:
    inside = [
        k
        for k in range(correct, total - (n - correct) + 1)
        if 20 * (total + 1) * math.comb(k, correct) * math.comb(total - k, n - correct) > math.comb(total + 1, n + 1)
    ]
    found = anytime_interval(correct, n, total)
    assert (found.low, found.high) == (inside[0] / total, inside[-1] / total)


def test_all_images_leave_a_point() -> None:
    assert anytime_interval(37, 50, 50) == Estimate(0.74, 0.74, 0.74)


@pytest.mark.parametrize("counts", [(1, 0, 5), (3, 2, 5), (2, 6, 5), (-1, 2, 5)])
def test_impossible_counts(counts: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="impossible counts"):
        anytime_interval(*counts)
