"""Which images are decided, and what is kept of the others."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from fastadv.attacks.engine.undecided import Undecided, is_correct
from fastadv.evaluate.hits import hits

INF, NAN = math.inf, math.nan
ROWS = [  # logits of three classes, and whether each is correct
    ([2.0, 1.0, 0.0], [True, False, False]),
    ([1.0, 1.0, 0.0], [True, False, False]),  # a tie goes to the lower index
    ([0.0, 1.0, 1.0], [False, True, False]),
    ([0.0, 0.0, 0.0], [True, False, False]),
    ([INF, INF, 0.0], [True, False, False]),
    ([-INF, -INF, -INF], [True, False, False]),
    ([0.0, NAN, 5.0], [False, False, False]),
    ([NAN, NAN, NAN], [False, False, False]),
]


@pytest.mark.parametrize(("logits", "correct"), ROWS)
def test_correct_as_in_an_evaluation(logits: list[float], correct: list[bool]) -> None:
    rows, labels = torch.tensor(logits).expand(3, 3), torch.arange(3)
    assert is_correct(rows, labels).tolist() == correct
    assert hits(nn.Identity(), rows, labels).top1.tolist() == correct


def numbered(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float32)[:, None]  # [n, 1]


def logits(*correct: bool) -> Tensor:
    """Of class 0, correct or not."""
    return torch.tensor([[1.0, 0.0] if one else [0.0, 1.0] for one in correct])


def test_the_first_misclassified_image_is_the_result() -> None:
    undecided = Undecided(numbered(0, 1, 2, 3), torch.zeros(4, dtype=torch.int64))
    assert undecided.left.tolist() == [0, 1, 2, 3] and undecided.adv.flatten().tolist() == [0, 1, 2, 3]
    wrong = undecided.look(torch.tensor([1, 3]), numbered(11, 13), logits(False, True))
    assert wrong.tolist() == [True, False]
    assert undecided.left.tolist() == [0, 2, 3] and undecided.adv.flatten().tolist() == [0, 11, 2, 3]
    wrong = undecided.look(torch.tensor([3, 1]), numbered(23, 21), logits(False, False))
    assert wrong.tolist() == [True, True]
    assert undecided.left.tolist() == [0, 2] and undecided.adv.flatten().tolist() == [0, 11, 2, 23]


def test_the_best_of_the_others_is_kept() -> None:
    undecided = Undecided(numbered(0, 1, 2), torch.zeros(3, dtype=torch.int64))
    undecided.look(torch.tensor([0]), numbered(10), logits(False))
    everywhere = torch.arange(3)
    undecided.keep_best(everywhere, numbered(20, 21, 22), torch.tensor([5.0, -3.0, NAN]))
    assert undecided.adv.flatten().tolist() == [10, 21, 2]
    undecided.keep_best(everywhere, numbered(30, 31, 32), torch.tensor([5.0, -3.0, -9.0]))
    assert undecided.adv.flatten().tolist() == [10, 21, 32]  # of equals the first
    undecided.keep_best(torch.tensor([2, 1]), numbered(42, 41), torch.tensor([-8.0, -4.0]))
    assert undecided.adv.flatten().tolist() == [10, 21, 42]
    assert undecided.left.tolist() == [1, 2]


def test_images_leave_when_fewer_than_three_quarters_of_the_batch_are_left() -> None:
    undecided = Undecided(torch.zeros(8, 1), torch.zeros(8, dtype=torch.int64))
    everywhere = torch.arange(8)
    undecided.look(everywhere[:2], numbered(1, 1), logits(False, False))
    assert undecided.rows_left(everywhere) is None  # 6 of 8
    undecided.look(everywhere[7:], numbered(1), logits(False))
    rows = undecided.rows_left(everywhere)
    assert rows is not None and rows.tolist() == [2, 3, 4, 5, 6]
    assert undecided.rows_left(torch.tensor([7, 2, 3, 4])) is None  # 3 of 4
    rows = undecided.rows_left(torch.tensor([7, 0]))
    assert rows is not None and rows.tolist() == []


def test_with_targets_those_that_have_them_are_decided() -> None:
    undecided = Undecided(numbered(0, 1, 2), torch.zeros(3, dtype=torch.int64), targeted=True)
    place = undecided.left
    assert undecided.look(place, numbered(10, 11, 12), logits(False, True, False)).tolist() == [False, True, False]
    assert undecided.left.tolist() == [0, 2] and undecided.adv.tolist() == [[0], [11], [2]]
    undecided.keep_best(place, numbered(20, 21, 22), torch.tensor([1.0, 1.0, -1.0]))
    assert undecided.adv.tolist() == [[20], [11], [22]]


def test_images_that_are_finished_are_not_looked_at_again() -> None:
    undecided = Undecided(numbered(0, 1, 2), torch.zeros(3, dtype=torch.int64))
    undecided.finish(torch.tensor([0, 2]), numbered(10, 12), torch.tensor([False, True]))
    assert undecided.left.tolist() == [0, 1] and undecided.adv.flatten().tolist() == [0, 1, 12]
    undecided.finish(torch.tensor([1, 2]), numbered(21, 22), torch.tensor([True, True]))
    assert undecided.left.tolist() == [0] and undecided.adv.flatten().tolist() == [0, 21, 12]
