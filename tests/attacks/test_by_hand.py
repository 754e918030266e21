"""Every attack on a linear model whose gradients are sums of three products."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fastadv import PixelSpace, attacks
from fastadv.attacks.iterative import paper_iterations
from tests.attacks.models import SPACES, LinearOnPixels, PixelLogits

CLEAN = (100.0,) * 6

# LinearOnPixels predicts p = (0.5, 0.3, 0.2); d = p - onehot(target) for a cross-entropy, -p (log p + H) for the
# entropy H = 1.030. The gradient of a pixel is the sum over classes of WEIGHTS * d:
#
#              d                          pixel 0   1      2     3     4   5
# true (1)     (0.5, -0.7, 0.2)              3     -9    -12    -7     0   12
# pred. (0)    (-0.5, 0.3, 0.2)             -7      1      8     3     0   -8
# l.l. (2)     (0.5, 0.3, -0.8)             13     11     -2     3     0    2
# entropy      (-0.168, 0.052, 0.116)       -2.8   -0.6    2.2   0.5   0   -2.2
TRUE = (3, -9, -12, -7, 0, 12)
# With label smoothing of 0.3, d = (0.4, -0.5, 0.1):
TRUE_SMOOTH = (3, -6, -9, -5, 0, 9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
@pytest.mark.parametrize(
    ("name", "eps", "options", "clean", "change"),
    [
        ("fgsm", 8, {}, CLEAN, (8, -8, -8, -8, 0, 8)),
        ("fgsm", 8, {}, (254, 2, 0, 100, 0, 255), (1, -2, 0, -8, 0, 0)),  # the pixel range
        ("fgsm", 0, {}, CLEAN, (0, 0, 0, 0, 0, 0)),
        ("fgsm_pred", 8, {}, CLEAN, (-8, 8, 8, 8, 0, -8)),
        ("fast_entropy", 8, {}, CLEAN, (-8, -8, 8, 8, 0, -8)),
        ("fast_grad_l2", math.sqrt(427), {}, CLEAN, TRUE),  # eps is the gradient's norm
        ("fast_grad_l2", math.sqrt(427), {}, (254, 100, 5, 100, 0, 255), (1, -9, -5, -7, 0, 0)),
        ("fast_grad_linf", 12, {}, CLEAN, TRUE),
        ("fast_grad_linf", 9, {"label_smoothing": 0.3}, CLEAN, TRUE_SMOOTH),
        ("step_ll", 8, {}, CLEAN, (-8, -8, 8, -8, 0, -8)),
        ("iter_basic", 0.5, {}, CLEAN, (0.5, -0.5, -0.5, -0.5, 0, 0.5)),  # max(1, int(0.625)) steps
        ("iter_basic", 1.5, {}, CLEAN, (1, -1, -1, -1, 0, 1)),  # int(1.875) steps of 1
        ("iter_basic", 2.5, {}, CLEAN, (2.5, -2.5, -2.5, -2.5, 0, 2.5)),  # 3 steps, clipped
        ("iter_basic", 2.5, {}, (254, 2, 0, 100, 0, 255), (1, -2, 0, -2.5, 0, 0)),
        ("iter_basic", 8, {"alpha": 0.5, "steps": 3}, CLEAN, (1.5, -1.5, -1.5, -1.5, 0, 1.5)),
        ("iter_ll", 2, {}, CLEAN, (-2, -2, 2, -2, 0, -2)),
        ("iter_ll", 8, {"alpha": 0.5, "steps": 3}, CLEAN, (-1.5, -1.5, 1.5, -1.5, 0, -1.5)),
        ("pgd", 8, {"random_start": False, "steps": 3}, CLEAN, (8, -8, -8, -8, 0, 8)),  # alpha = 2.5 eps / steps
        ("pgd", 8, {"random_start": False, "alpha": 1}, (254, 2, 0, 100, 0, 255), (1, -2, 0, -8, 0, 0)),
        ("pgd", 8, {"random_start": False, "alpha": 1, "steps": 3}, CLEAN, (3, -3, -3, -3, 0, 3)),
        ("n_fgsm", 8, {"noise": 0}, CLEAN, (8, -8, -8, -8, 0, 8)),
        ("n_fgsm", 8, {"noise": 0, "alpha": 12}, CLEAN, (12, -12, -12, -12, 0, 12)),  # no ball
        ("n_fgsm", 8, {"noise": 0, "alpha": 12}, (254, 2, 0, 100, 0, 255), (1, -2, 0, -12, 0, 0)),  # but the range
        ("mi_fgsm", 8, {}, CLEAN, (8, -8, -8, -8, 0, 8)),
        ("mi_fgsm", 8, {"steps": 3, "alpha": 1}, CLEAN, (3, -3, -3, -3, 0, 3)),
    ],
)
@pytest.mark.filterwarnings("ignore:eps = 0.5")
def test_pixels(name: str, eps: float, options: dict[str, Any], clean, change, space: PixelSpace, dtype) -> None:
    pixels = torch.tensor(clean, dtype=torch.float64).view(1, 3, 1, 2)
    attack = attacks.create(name, LinearOnPixels(space, pixels), eps=eps, space=space, **options)
    adv = attack(space.from_pixels(pixels, dtype), torch.tensor([1]))
    expected = pixels.flatten() + torch.tensor(change)
    tolerance = {"rtol": 0, "atol": 1e-3 if dtype == torch.float32 else 1e-9}
    torch.testing.assert_close(space.to_pixels(adv).flatten().double(), expected, **tolerance)


def test_step_rnd_goes_to_either_class_that_is_not_predicted() -> None:
    pixels = torch.full((64, 3, 1, 2), 100.0)
    model = LinearOnPixels(PixelSpace.raw(), pixels[:1])
    change = attacks.create("step_rnd", model, eps=8, space=PixelSpace.raw(), seed=0)(pixels) - pixels
    rows = [tuple(row) for row in change.flatten(1).tolist()]
    towards_1, towards_2 = (-8, 8, 8, 8, 0, -8), (-8, -8, 8, -8, 0, -8)
    assert set(rows) == {towards_1, towards_2}
    assert 16 < rows.count(towards_1) < 48  # four standard deviations


@pytest.mark.parametrize("clean", [100.0, 3.0, 252.0])
@pytest.mark.parametrize("name", ["random_sign", "random_normal"])
def test_noise_asks_no_model(name: str, clean: float) -> None:
    def model(images: Tensor) -> Tensor:
        raise AssertionError("the model was called")

    pixels = torch.full((2, 3, 8, 8), clean, dtype=torch.float64)
    adv = attacks.create(name, model, eps=8, space=PixelSpace.raw(), seed=0)(pixels)
    low, high = max(clean - 8, 0.0), min(clean + 8, 255.0)
    if name == "random_sign":
        assert set(adv.unique().tolist()) == {low, high}
    else:
        assert low <= adv.min() < clean < adv.max() <= high and adv.unique().numel() > 150


# --- schedules -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("per_example", [False, True], ids=["number", "per example"])
@pytest.mark.parametrize("name", ["iter_basic", "iter_ll"])
@pytest.mark.parametrize(
    ("eps", "iterations"),
    [(0, 1), (0.5, 1), (1, 1), (1.5, 1), (1.6, 2), (2, 2), (2.4, 3), (4, 5), (8, 10), (15, 18), (16, 20), (32, 36)],
)  # max(1, int(min(eps + 4, 1.25 eps)))
@pytest.mark.filterwarnings("ignore:eps = 0.5")
def test_iterations_of_the_paper(name: str, eps: float, iterations: int, per_example: bool) -> None:
    model, forwards = PixelLogits(PixelSpace.raw()), []
    model.register_forward_hook(lambda *_: forwards.append(1))
    given = torch.tensor([eps, 0.0]) if per_example else eps
    attacks.create(name, model, eps=given, space=PixelSpace.raw())(torch.full((2, 1, 1, 3), 9.0), torch.tensor([0, 1]))
    assert len(forwards) == iterations


def test_a_number_and_a_tensor_give_the_same_iterations() -> None:
    """Also if 1.25 eps is a whole number in exact arithmetic but eps is rounded."""
    for tenths in range(10, 400):
        eps = tenths / 10
        assert int(paper_iterations(torch.tensor([eps]))) == paper_iterations(eps)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("iter_basic", ([-1, 1, 1], [-2.5, 2.5, 2.5], [0, 0, 0])),
        ("iter_ll", ([1, -1, -1], [2.5, -2.5, -2.5], [0, 0, 0])),
    ],
)
def test_finished_examples_stand_still(name: str, change) -> None:
    """eps of 1.5, 2.5 and 0: 1, 3 and 1 steps of 1; pixel 0 is the true and the least likely class at once."""
    pixels = torch.tensor([100.0, 110.0, 120.0]).expand(3, 3).reshape(3, 3, 1, 1).clone()
    attack = attacks.create(
        name, PixelLogits(PixelSpace.raw()), eps=torch.tensor([1.5, 2.5, 0]), space=PixelSpace.raw()
    )
    moved = attack(pixels, torch.tensor([0, 0, 0])) - pixels
    assert torch.equal(moved.flatten(1), torch.tensor(change))


def test_the_least_likely_class_is_that_of_the_clean_image() -> None:
    """One step makes pixel 1 the least likely class; the target stays pixel 0."""
    pixels = torch.tensor([100.0, 101.0, 150.0]).view(1, 3, 1, 1)
    adv = attacks.create("iter_ll", PixelLogits(PixelSpace.raw()), eps=2.5, space=PixelSpace.raw())(pixels)
    assert adv.flatten().tolist() == [102.5, 98.5, 147.5]


class Ridge(nn.Module):
    """One pixel, two classes; the cost of class 0 rises up to pixel value 100.5 and falls five times as fast beyond."""

    def forward(self, images: Tensor) -> Tensor:  # [N, 1] -> [N, 2]
        height = torch.minimum(0.01 * (images - 100.5), 0.05 * (100.5 - images))
        return torch.cat((torch.zeros_like(height), height), dim=1)


@pytest.mark.parametrize(
    ("decay", "path"),
    [
        (0.0, [101, 100, 101, 100]),  # the gradients themselves: +, -, +, -
        (0.5, [101, 100, 101, 100]),  # 1, -0.5, 0.75, -0.625
        (1.0, [101, 101, 100, 100]),  # 1, 0, -1, 0
        (2.0, [101, 102, 103, 104]),  # 1, 1, 1, 1
    ],
)
def test_momentum_accumulates_normalised_gradients(decay: float, path: list[float]) -> None:
    for steps, expected in enumerate(path, start=1):
        attack = attacks.create("mi_fgsm", Ridge(), eps=8, alpha=1, steps=steps, decay=decay, space=PixelSpace.raw())
        assert attack(torch.tensor([[100.0]]), torch.tensor([0])).item() == expected


@pytest.mark.parametrize("space", [PixelSpace.raw(), PixelSpace(0.0, (1, 100, 1))], ids=str)
def test_momentum_takes_the_mean_over_pixels(space: PixelSpace) -> None:
    """The lead falls by (3, -1, 0) over 4 / 3 in the first step and (-2, 0, -2) over 4 / 3 in the second, in any space.

    Over the means of the normalised input, 34.3 and 1.33 with a std of 100, the first would not count for channel 0.
    """

    def model(images: Tensor) -> Tensor:  # [1, 3] -> [1, 2]
        a, b, c = space.to_pixels(images).unbind(1)
        beyond = (a - 99).relu()  # 1 at first, then 0
        lead = 5 * beyond - 2 * a - b + (b - 101).relu() - 2 * (c - 50 - 1000 * beyond).relu()
        return 0.01 * torch.stack((lead, -lead), dim=1)

    attack = attacks.create("mi_fgsm", model, eps=4, steps=2, space=space)
    adv = attack(space.from_pixels(torch.full((1, 3), 100.0), torch.float64), torch.tensor([0]))
    torch.testing.assert_close(space.to_pixels(adv), torch.tensor([[96.0, 104.0, 102.0]], dtype=torch.float64))


def test_momentum_in_half_precision() -> None:
    """The sum of 70,000 gradients of 2 overflows float16."""

    def model(images: Tensor) -> Tensor:  # [N, 70_000] -> [N, 2]
        logit = 4 * (images.float() - 100).sum(1)
        return torch.stack((torch.zeros_like(logit), logit), dim=1)

    attack = attacks.create("mi_fgsm", model, eps=8, alpha=1, steps=2, space=PixelSpace.raw())
    adv = attack(torch.full((1, 70_000), 100.0, dtype=torch.float16), torch.tensor([0]))
    assert (adv == 102).all()


@pytest.mark.parametrize(
    ("name", "steps", "expected"),
    [
        ("pgd", 1, 108),  # alpha = 2.5 eps / steps = 20, clipped
        ("pgd", 5, 104),  # alpha = 4: 104, 100, 104, 100, 104
        ("mi_fgsm", 1, 108),  # alpha = eps / steps = 8
        ("mi_fgsm", 2, 104),  # alpha = 4: 104, and no further
    ],
)
@pytest.mark.parametrize("per_example", [False, True], ids=["number", "per example"])
def test_default_alpha(name: str, steps: int, expected: float, per_example: bool) -> None:
    options = {"random_start": False} if name == "pgd" else {}
    eps = torch.tensor([8.0]) if per_example else 8
    attack = attacks.create(name, Ridge(), eps=eps, steps=steps, space=PixelSpace.raw(), **options)
    assert attack(torch.tensor([[100.0]]), torch.tensor([0])).item() == expected
