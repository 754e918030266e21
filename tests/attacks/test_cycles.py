"""Iterates that come before: an attack's steps go round from there, and only the rest of a round is taken."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fastadv import attacks
from fastadv.attacks.engine.cycles import Cycles, hashes
from fastadv.attacks.engine.step_sizes import are_equal

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_hashes_tell_images_apart(dtype: torch.dtype) -> None:
    """One for each of ten thousand that differ in one value, in the order of two values, or in a sign."""
    base = torch.rand(1, 3, 5, 7, generator=torch.Generator().manual_seed(0)).to(dtype)
    images = base.repeat(105, 1, 1, 1)
    for place in range(105):
        images.view(105, -1)[place, place] += 0.25
    swapped = base.view(1, -1)[:, torch.arange(104, -1, -1)].view_as(base)
    found = hashes(torch.cat([base, images, swapped, -base, base]))
    assert len(found.unique()) == 108
    assert found[0] == found[-1]


def test_a_hash_depends_on_the_image_alone() -> None:
    images = torch.rand(300, 3, 16, 16)
    whole = hashes(images)
    assert torch.equal(hashes(images[7:8]), whole[7:8])
    assert torch.equal(hashes(images.contiguous(memory_format=torch.channels_last)), whole)


def test_periods() -> None:
    cycles = Cycles(3, 9, torch.device("cpu"))
    #         image 0 goes round by two, image 1 stands still from its third iterate on, image 2 never comes back
    rounds = [[0, 0, 0], [1, 1, 1], [2, 2, 2], [1, 2, 3], [2, 2, 4]]
    found = [cycles.periods(torch.arange(3), torch.tensor(values).view(3, 1).float()).tolist() for values in rounds]
    assert found == [[0, 0, 0], [0, 0, 0], [0, 0, 0], [2, 1, 0], [2, 1, 0]]
    assert cycles.periods(torch.tensor([0, 2]), torch.tensor([[0.0], [1.0]])).tolist() == [5, 4]


@pytest.mark.parametrize(
    ("sizes", "counts", "expected"),
    [
        ([2.0, 2.0, 2.0], [3, 3], True),
        ([2.0, 2.0, 1.0], [3, 3], False),
        ([torch.tensor([2.0, 1.0])] * 3, [3, 3], True),
        ([torch.tensor([2.0, 1.0]), torch.tensor([2.0, 0.0])], [2, 1], True),
        ([torch.tensor([2.0, 1.0]), torch.tensor([2.0, 0.0])], [2, 2], False),
        ([2.0, torch.tensor([2.0, 2.0])], [2, 2], True),
    ],
)
def test_steps_of_one_length(sizes: Sequence[Any], counts: Sequence[int], expected: bool) -> None:
    assert are_equal(sizes, counts) == expected


class Valley(nn.Module):
    """Two classes; the cost of the first is highest at a pixel value of 10.25, and never enough to fool it.

    Attributes:
        rows: number of images of each pass.
    """

    draws = False

    def __init__(self) -> None:
        super().__init__()
        self.highest = nn.Parameter(torch.tensor(10.25, dtype=torch.float64))
        self.rows: list[int] = []

    def forward(self, images: Tensor) -> Tensor:  # [N, 1, 1, 1] -> [N, 2]
        self.rows.append(len(images))
        if self.draws:
            torch.rand(1)
        z = 1 + (255 * images.flatten(1) - self.highest) ** 2 + (torch.rand(1) if self.draws else 0)  # [N, 1]
        return torch.cat([z, torch.zeros_like(z)], dim=1)


# Pixels 8 and 9 reach 10 or 11 after 2 steps and go to and fro; 0 needs 10 for it, and 100 never arrives.
PIXELS = torch.tensor([8.0, 9.0, 0.0, 100.0], dtype=torch.float64).view(4, 1, 1, 1)
LABELS = torch.zeros(4, dtype=torch.int64)


@pytest.mark.parametrize("early_stop", [False, True])
@pytest.mark.parametrize("steps", [40, 41])
def test_a_cycle_ends_a_run_at_its_last_iterate(steps: int, early_stop: bool) -> None:
    model = Valley()
    options: dict[str, Any] = {"eps": 50, "alpha": 1, "steps": steps}
    expected = attacks.IterBasic(model, **options, validate="never")(PIXELS / 255, LABELS)  # takes all steps, see below
    assert model.rows == [4] * steps
    model.rows.clear()
    attack = attacks.IterBasic(model, early_stop=early_stop, **options)
    assert torch.equal(attack(PIXELS / 255, LABELS), expected)
    assert [round(float(255 * one)) for one in expected.flatten()[:3]] == (
        [10, 11, 10] if steps == 40 else [11, 10, 11]
    )
    # The iterates of 8 are 9, 10, 11, 10: the fourth one came before, and so did the third one of 9.
    assert attack.image_gradients < (5 + 5 + 14 + steps) + steps
    assert len(model.rows) == steps + 2  # of the image that does not go round; two see that the model draws nothing
    assert attack.image_gradients + attack.image_queries == sum(model.rows)


def rows(attack: attacks.GradientAttack) -> int:
    attack(PIXELS[:3] / 255, LABELS[:3])
    return attack.image_gradients


class OwnStep(attacks.IterBasic):
    name = "own_step"

    def step_(self, adv: Tensor, clean: Tensor, grad: Tensor, alpha: Any, eps: Any) -> None:
        super().step_(adv, clean, grad, alpha, eps)


ALL = 3 * 40
STEADY: dict[str, Any] = {"eps": 50, "alpha": 1, "steps": 40, "early_stop": True}


def test_who_looks_for_cycles() -> None:
    """Those alone whose step depends on nothing but the iterate; each of the others takes all steps."""
    model = Valley()
    assert rows(attacks.IterBasic(model, **STEADY)) < 0.5 * ALL
    assert rows(attacks.IterBasic(model, **{**STEADY, "early_stop": False})) < 0.5 * ALL
    assert rows(attacks.IterBasic(model, **{**STEADY, "early_stop": False, "steps": 39})) == 3 * 39  # a short run
    assert rows(attacks.PGD(model, seed=1, **STEADY)) < ALL
    assert rows(attacks.IterBasic(model, **STEADY, validate="never")) == ALL  # nobody has looked if the model draws
    assert rows(attacks.MIFGSM(model, **STEADY)) == ALL  # remembers
    assert rows(OwnStep(model, **STEADY)) == ALL  # may remember


def test_a_model_that_draws_has_no_cycles() -> None:
    model = Valley()
    model.draws = True
    with pytest.warns(UserWarning, match="draws random numbers"):
        assert rows(attacks.IterBasic(model, **STEADY)) == ALL
    assert rows(attacks.IterBasic(copy.deepcopy(model), **STEADY, eot=2)) == 2 * ALL


def test_a_model_with_a_generator_of_its_own_has_no_cycles() -> None:
    """Nothing else tells that it draws: iterates at the corners of the ball come again whatever the gradient."""

    class Own(Valley):
        generator = torch.Generator().manual_seed(0)

        def forward(self, images: Tensor) -> Tensor:
            return super().forward(images) + torch.rand(1, generator=self.generator)

    assert rows(attacks.IterBasic(Own(), **STEADY)) == ALL


def test_a_model_that_draws_later_has_no_cycles() -> None:
    model = Valley()
    attack = attacks.IterBasic(model, **STEADY)
    first = rows(attack)
    assert first < 0.5 * ALL
    model.draws = True
    assert rows(attack) == first + ALL
