from __future__ import annotations

import pytest
import torch

from fastadv.pixels import PixelSpace
from fastadv.train import AdversarialTask
from fastadv.train.epoch_metrics import EpochMeans, EpochMetrics
from fastadv.train.step_metrics import StepTotals


def totals(loss: float, clean: int, of_clean: int, adversarial: int, of_adversarial: int) -> StepTotals:
    return StepTotals(loss, 1, (clean, adversarial), (of_clean, of_adversarial), finite=True, stop=False, seconds=0.0)


@pytest.mark.parametrize(
    ("iterations", "expected"),
    [
        ([totals(2.0, 3, 4, 0, 0)], EpochMeans(2.0, 0.75, None)),
        ([totals(2.0, 0, 0, 1, 4)], EpochMeans(2.0, None, 0.25)),
        # 3 + 1 of 4 + 4 clean examples, 1 of 4 adversarial ones: shares of examples, not means of shares.
        ([totals(2.0, 3, 8, 0, 0), totals(1.0, 1, 4, 1, 4)], EpochMeans(1.5, 4 / 12, 0.25)),
    ],
)
def test_by_hand(iterations: list[StepTotals], expected: EpochMeans) -> None:
    metrics = EpochMetrics()
    for attempt in range(2):
        for iteration in iterations:
            metrics.add(iteration)
            resumed = EpochMetrics()
            resumed.load_state_dict(metrics.state_dict())
            metrics = resumed
        assert metrics.means() == pytest.approx(expected), attempt
        metrics.reset()


def test_hits_of_a_minibatch() -> None:
    """The last two of three classes are never predicted; the first k examples are the adversarial ones."""
    row = torch.tensor([2.0, 0.0, 0.0])  # [K]
    task = AdversarialTask(lambda images: 0 * images.sum((1, 2, 3))[:, None] + row, k=2, space=PixelSpace.unit())
    task(torch.rand(5, 1, 2, 2), torch.tensor([0, 1, 0, 0, 2]))
    correct, examples = task.hits()
    assert (correct.tolist(), examples) == ([2, 1], (3, 2))
