"""Accuracy that guessing reaches."""

from __future__ import annotations

import pytest
import torch

from fastadv.train.validation import chance


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ([25, 25, 25, 25], 0.25 + 2 * 0.0433),  # sqrt(0.25 * 0.75 / 100)
        ([80, 10, 10], 0.8 + 2 * 0.04),
        ([0, 90, 10], 0.9 + 2 * 0.03),
        ([7], 1.0),
    ],
)
def test_chance_by_hand(counts: list[int], expected: float) -> None:
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    assert chance(labels) == pytest.approx(expected, abs=1e-4)
