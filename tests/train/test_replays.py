"""Replayed: the order of minibatches, from any start."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from fastadv.train import Replayed


class Numbers:
    """Minibatch b of epoch e is the number 100 e + b."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.loaded: list[int] = []
        self.indices = torch.empty(0, dtype=torch.int64)

    def __len__(self) -> int:
        return self.count

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        for number in range(start, self.count):
            self.indices = torch.tensor([100 * epoch + number])
            self.loaded.append(number)
            yield torch.tensor([float(self.indices)]), self.indices.clone()


def order(loader: Replayed, epoch: int, start: int = 0) -> list[int]:
    """The minibatches in order; images, labels and indices agree."""
    numbers = []
    for images, labels in loader.epoch(epoch, start):
        assert images.tolist() == labels.tolist() == loader.indices.tolist()
        numbers.append(int(labels))
    return numbers


@pytest.mark.parametrize(
    ("count", "replays", "together", "expected"),
    [
        (3, 2, 1, [0, 0, 1, 1, 2, 2]),
        (2, 3, 1, [0, 0, 0, 1, 1, 1]),
        (3, 1, 1, [0, 1, 2]),
        (4, 2, 2, [0, 1, 0, 1, 2, 3, 2, 3]),
        (5, 2, 2, [0, 1, 0, 1, 2, 3, 2, 3]),  # the last one does not fill an iteration
        (2, 2, 3, []),
    ],
)
def test_order_from_any_start(count: int, replays: int, together: int, expected: list[int]) -> None:
    loader = Replayed(Numbers(count), replays, together=together)
    assert len(loader) == len(expected)
    for epoch in (0, 2):
        for start in range(len(expected) + 1):
            assert order(loader, epoch, start) == [100 * epoch + number for number in expected[start:]]


def test_nothing_is_loaded_twice_or_before_it_is_due() -> None:
    numbers = Numbers(4)
    minibatches = Replayed(numbers, 3, together=2).epoch(0)
    same = [next(minibatches) for _ in range(6)]
    assert numbers.loaded == [0, 1]
    assert same[0][0] is same[2][0] is same[4][0]
    next(minibatches)
    assert numbers.loaded == [0, 1, 2, 3]


@pytest.mark.parametrize("start", [-1, 7])
def test_a_start_out_of_range(start: int) -> None:
    with pytest.raises(ValueError, match=rf"0\.\.6, got {start}"):
        Replayed(Numbers(3), 2).epoch(0, start)


@pytest.mark.parametrize("options", [{"replays": 0}, {"replays": 2, "together": 0}])
def test_options_that_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must be at least 1, got 0"):
        Replayed(Numbers(3), **options)
