"""Batches: the order of examples, and their processes."""

from __future__ import annotations

import pytest
import torch

from fastadv.data import ImageSet, TensorLoader
from fastadv.data.loaders.batch_sampler import Batches
from fastadv.pixels import PixelSpace


def batches(
    count: int, batch_size: int, epoch: int = 0, start: int = 0, train: bool = True, **options: int
) -> list[list[int]]:
    plan = Batches(count=count, batch_size=batch_size, shuffle=train, drop_last=train, **options)
    found = [indices.tolist() for indices in plan.of_epoch(epoch, start)]
    assert len(found) == len(plan) - start
    return found


@pytest.mark.parametrize(
    ("count", "batch_size", "world_size", "expected"),
    [
        (7, 3, 1, [[[0, 1, 2], [3, 4, 5], [6]]]),
        (6, 3, 1, [[[0, 1, 2], [3, 4, 5]]]),
        (0, 3, 1, [[]]),
        (10, 2, 2, [[[0, 1], [4, 5], [8]], [[2, 3], [6, 7], [9]]]),
        (9, 2, 2, [[[0, 1], [4, 5]], [[2, 3], [6, 7], [8]]]),  # one left for two processes
        (1, 4, 3, [[], [], [[0]]]),
    ],
)
def test_evaluation_by_hand(count: int, batch_size: int, world_size: int, expected: list[list[list[int]]]) -> None:
    ranks = range(world_size)
    shares = [batches(count, batch_size, train=False, rank=rank, world_size=world_size) for rank in ranks]
    assert shares == expected


@pytest.mark.parametrize("world_size", [1, 2, 3, 4, 6])
def test_the_order_of_training_does_not_depend_on_the_number_of_processes(world_size: int) -> None:
    alone = batches(100, 12, epoch=3)
    shares = [batches(100, 12 // world_size, epoch=3, rank=r, world_size=world_size) for r in range(world_size)]
    assert [[index for rows in batch for index in rows] for batch in zip(*shares, strict=True)] == alone
    assert len(alone) == 8 and len({index for batch in alone for index in batch}) == 96


def test_the_order_is_that_of_images_in_memory() -> None:
    images = ImageSet(torch.zeros(20, 1, 2, 2, dtype=torch.uint8), torch.zeros(20, dtype=torch.int64), ("only",))
    loader = TensorLoader(images, 6, space=PixelSpace.raw(), seed=5)
    in_memory = [loader.indices.tolist() for _ in loader.epoch(2)]
    assert batches(20, 6, epoch=2, seed=5) == in_memory


def test_epochs_and_seeds_differ_and_repeat() -> None:
    orders = [batches(50, 50, epoch=epoch, seed=seed)[0] for epoch, seed in [(0, 0), (1, 0), (0, 1), (0, 0)]]
    assert orders[0] == orders[3]
    assert len({tuple(order) for order in orders}) == 3


@pytest.mark.parametrize("start", [0, 2, 4])
def test_an_epoch_resumes_at_any_batch(start: int) -> None:
    assert batches(50, 12, start=start) == batches(50, 12)[start:]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"rank": 2, "world_size": 2}, r"rank must be one of 2 processes, 0\.\.1, got 2"),
        ({"rank": -1}, "rank must be one of 1 processes"),
        (
            {"batch_size": 3, "world_size": 4},
            "the training set has 10 images, fewer than a batch of 3 on each of 4 processes",
        ),
    ],
)
def test_refusals(options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Batches(**{"count": 10, "batch_size": 2, "shuffle": True, "drop_last": True, **options})


def test_an_epoch_and_a_start_that_do_not_exist_are_refused() -> None:
    plan = Batches(count=10, batch_size=2, shuffle=True, drop_last=True)
    with pytest.raises(ValueError, match="epoch must be at least 0"):
        plan.of_epoch(-1)
    with pytest.raises(ValueError, match=r"start must be a batch of the epoch, 0\.\.5, got 6"):
        plan.of_epoch(0, 6)
