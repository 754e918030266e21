"""Iterative attacks with an eps for each example: those that are done leave the batch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fastadv import PixelSpace, TruncatedNormalEps, attacks
from fastadv.attacks.iterative import paper_iterations
from tests.attacks.models import ConvNet, batch

SPACE = PixelSpace.imagenet()
EPS = torch.tensor([4.0, 0.0, 12.0, 1.0, 7.5, 12.0, 2.0, 3.0])
STEPS = [5, 1, 15, 1, 9, 15, 2, 3]  # max(1, int(min(eps + 4, 1.25 eps)))


class Counting(nn.Module):
    """ConvNet, and how many images each forward pass had."""

    def __init__(self, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        self.net = ConvNet().to(dtype).eval()
        self.rows: list[int] = []

    def forward(self, images: Tensor) -> Tensor:  # [N, 3, 8, 8] -> [N, 5]
        self.rows.append(len(images))
        return self.net(images)


@pytest.mark.parametrize("name", ["iter_basic", "iter_ll"])
def test_images_are_those_of_single_calls(name: str) -> None:
    model, (images, labels) = Counting(), batch(8, SPACE, torch.float64)
    attack = attacks.create(name, model, eps=EPS, space=SPACE)
    given = [labels] if attack.needs_labels else []
    adv = attack(images, *given)
    first = model.rows[:15]
    for row, eps in enumerate(EPS.tolist()):
        one = slice(row, row + 1)
        single = attacks.create(name, model, eps=eps, space=SPACE)(images[one], *(labels[one] for labels in given))
        torch.testing.assert_close(adv[one], single, rtol=0, atol=1e-12)
    assert first == [sum(steps > step for steps in STEPS) for step in range(15)]


def test_rows_of_the_papers_distribution() -> None:
    """|N(0, 8)| in [0, 16] has a mean of 5.8: in a batch, most rows up to the last step would stand still."""
    model, (images, labels) = Counting(torch.float32), batch(64, SPACE)
    attacks.IterBasic(model, eps=TruncatedNormalEps(), space=SPACE, seed=1)(images, labels)
    drawn = TruncatedNormalEps().sample(64, seed=1, offset=0)
    assert sum(model.rows) == int(paper_iterations(drawn).sum())  # type: ignore[union-attr]
    assert sum(model.rows) < 0.5 * 64 * len(model.rows)


class WithMomentum(attacks.IterBasic):
    """A method of one's own that remembers."""

    name = "with_momentum"

    def direction(self, grad: Tensor, previous: Tensor | None) -> Tensor:
        return grad.clone() if previous is None else previous.mul_(0.5).add_(grad)


class OwnSchedule(attacks.IterBasic):
    name = "own_schedule"

    def step_sizes(self, size: Any) -> Any:
        return [0.1 * size.eps] * 10


def test_a_schedule_of_your_own_is_not_cut_short() -> None:
    model, (images, labels) = Counting(), batch(8, SPACE, torch.float64)
    OwnSchedule(model, eps=EPS, space=SPACE)(images, labels)
    assert model.rows == [8] * 10


class Counts(attacks.IterBasic):
    name = "counts"
    counts: Any = None

    def step_sizes(self, size: Any) -> Any:
        return [1.0] * 5

    def step_counts(self, size: Any) -> Any:
        return self.counts


@pytest.mark.parametrize(("counts", "rows"), [([1, 2] * 4, [8, 4]), ([2] * 8, [8, 8])])
def test_no_step_follows_the_last_count(counts: list[int], rows: list[int]) -> None:
    model, (images, labels) = Counting(), batch(8, SPACE, torch.float64)
    attack = Counts(model, eps=8, space=SPACE)
    attack.counts = counts
    attack(images, labels)
    assert model.rows == rows
    attack.counts = [1, 0] * 4
    with pytest.raises(ValueError, match="step_counts must return 8 numbers, one per image and at least 1"):
        attack(images, labels)


def test_what_is_remembered_stays_with_its_example() -> None:
    model, (images, labels) = Counting(), batch(8, SPACE, torch.float64)
    adv = WithMomentum(model, eps=EPS, space=SPACE)(images, labels)
    for row, eps in enumerate(EPS.tolist()):
        one = slice(row, row + 1)
        single = WithMomentum(model, eps=eps, space=SPACE)(images[one], labels[one])
        torch.testing.assert_close(adv[one], single, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "options", [{"steps": 3}, {"bn": "batch"}, {"eps": torch.full((8,), 4.0)}], ids=["steps", "bn", "equal sizes"]
)
def test_all_stay_where_none_is_done_or_rows_depend_on_one_another(options: dict[str, Any]) -> None:
    model, (images, labels) = Counting(), batch(8, SPACE, torch.float64)
    attacks.IterBasic(model, **{"eps": EPS, **options}, space=SPACE)(images, labels)
    assert set(model.rows) == {8}


def test_images_are_as_they_were_if_a_later_step_raises() -> None:
    class Fails(Counting):
        def forward(self, images: Tensor) -> Tensor:
            if len(self.rows) == 4:
                raise RuntimeError("out of memory")
            return super().forward(images)

    model, (images, labels) = Fails(), batch(8, SPACE, torch.float64)
    before = images.clone()
    with pytest.raises(RuntimeError, match="out of memory"):
        attacks.IterBasic(model, eps=EPS, space=SPACE).perturb_(images, labels)
    assert torch.equal(images, before)


def test_channels_last_and_perturb_in_place() -> None:
    model, (images, labels) = Counting(), batch(8, SPACE, torch.float64)
    last = images.contiguous(memory_format=torch.channels_last)
    attack = attacks.IterBasic(model, eps=EPS, space=SPACE)
    assert attack.perturb_(last, labels) is last and last.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(last, attack(images, labels), rtol=0, atol=1e-12)
