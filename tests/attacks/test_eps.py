"""eps: a number, one per example, a distribution, for one call; and wrong units."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from fastadv import PixelSpace, TruncatedNormalEps, attacks
from tests.attacks.models import ConvNet, batch


@pytest.mark.parametrize("name", attacks.names())
@pytest.mark.parametrize(
    "eps",
    [
        *(4, np.int64(4), np.float32(4)),
        *(torch.tensor(4), torch.tensor(4.0)),
        *(torch.full((6,), 4), torch.full((6,), 4.0, dtype=torch.float16)),
    ],
    ids=["int", "NumPy int", "NumPy float", "0-d int tensor", "0-d tensor", "int tensor", "half tensor"],
)
@pytest.mark.parametrize("per_call", [False, True])
def test_ways_of_giving_eps(name: str, eps: Any, per_call: bool) -> None:
    images, labels = batch()
    make = functools.partial(attacks.create, name, ConvNet(), seed=0)
    expected = make(eps=4.0)(images, labels)
    adv = make(eps=9)(images, labels, eps=eps) if per_call else make(eps=eps)(images, labels)
    assert torch.equal(adv, expected)


@pytest.mark.parametrize("name", attacks.names())
def test_eps_per_example_is_each_examples_own(name: str) -> None:
    images, labels = batch(4, dtype=torch.float64)
    eps = torch.tensor([0.0, 1.5, 4.0, 12.0])
    model = ConvNet().double()
    adv = attacks.create(name, model, eps=eps, seed=0)(images, labels)
    for row, size in enumerate(eps.tolist()):
        alone = attacks.create(name, model, eps=size, seed=0)(images, labels)[row]
        torch.testing.assert_close(adv[row], alone, rtol=0, atol=1e-12)


@pytest.mark.parametrize("per_call", [False, True])
@pytest.mark.parametrize("name", attacks.names())
def test_eps_from_a_distribution_is_drawn_per_example(name: str, per_call: bool) -> None:
    images, labels = batch()
    distribution = TruncatedNormalEps(sigma=8, upper=16)
    make = functools.partial(attacks.create, name, ConvNet(), seed=5)
    attack = make(eps=0 if per_call else distribution)
    given = {"eps": distribution} if per_call else {}
    first, second = attack(images, labels, **given), attack(images, labels, **given)
    for offset, adv in ((0, first), (len(images), second)):
        reference = make(eps=distribution.sample(len(images), seed=5, offset=offset))
        reference.stream.offset = offset
        assert torch.equal(adv, reference(images, labels))


def test_a_calls_eps_is_for_that_call() -> None:
    images, _ = batch()
    attack = attacks.create("step_ll", ConvNet(), eps=8)
    expected = attack(images)
    assert torch.equal(attack(images, eps=0), images)
    assert torch.equal(attack(images), expected)
    attack.perturb_(images, eps=0)
    assert torch.equal(images, batch()[0])


def test_the_default_eps_is_sixteen_grey_levels() -> None:
    images = torch.full((1, 3, 8, 8), 0.5)
    adv = attacks.create("random_sign", ConvNet(), seed=0)(images)
    torch.testing.assert_close((255 * (adv - images)).abs(), torch.full_like(adv, 16.0))


WAYS_OF_GIVING_EPS = pytest.mark.parametrize(
    "give",
    [
        lambda eps: attacks.StepLL(ConvNet(), eps=eps),
        lambda eps: attacks.PGD(ConvNet(), eps=eps),
        lambda eps: attacks.create("step_ll", ConvNet(), eps=eps),
        lambda eps: attacks.create("pgd", ConvNet(), eps=eps),
        lambda eps: attacks.create("step_ll", ConvNet(), eps=4)(batch()[0], eps=eps),
        lambda eps: attacks.create("step_ll", ConvNet(), eps=4).perturb_(batch()[0], eps=eps),
    ],
    ids=["StepLL", "PGD", "create step_ll", "create pgd", "call", "perturb_"],
)


@WAYS_OF_GIVING_EPS
@pytest.mark.parametrize(
    "eps",
    [8 / 255, 0.999, torch.tensor(0.03), torch.full((6,), 8 / 255), TruncatedNormalEps(sigma=0.03, upper=0.06)],
    ids=["number", "almost 1", "0-d tensor", "tensor", "distribution"],
)
def test_eps_below_one_warns_once(give: Callable[[Any], Any], eps: Any) -> None:
    """Eps on a [0, 1] scale is the most common mistake."""
    with pytest.warns(UserWarning, match=r"pixel values of \[0, 255\].*on a \[0, 1\] scale is eps = ") as caught:
        attack = give(eps)
        if isinstance(attack, attacks.Attack):
            images, labels = batch()
            attack(images, attack.true_labels(labels))  # the values of a tensor are looked at with the images
    assert len(caught) == 1


@WAYS_OF_GIVING_EPS
def test_the_warning_points_at_the_callers_line(give: Callable[[Any], Any]) -> None:
    with pytest.warns(UserWarning, match="pixel values") as caught:
        give(0.03)
    assert caught[0].filename == __file__


@WAYS_OF_GIVING_EPS
@pytest.mark.parametrize(
    "eps", [0, 0.0, 1, 16, torch.zeros(6), torch.tensor([0.1, 0.2, 0, 0.3, 1, 0]), TruncatedNormalEps()]
)
def test_other_eps_do_not_warn(give: Callable[[Any], Any], eps: Any) -> None:
    """One small draw among others is not a mistake."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        give(eps)


@pytest.mark.parametrize(("alpha", "warns"), [(2 / 255, True), (0.099, True), (0.1, False), (0.5, False), (2, False)])
def test_alpha_far_below_a_grey_level_warns(alpha: float, warns: bool) -> None:
    """People do take steps of half a grey level; 2 / 255 of one is a mistake."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        attacks.create("pgd", ConvNet(), alpha=alpha)
    assert [str(warning.message).split(" ")[0] for warning in caught] == ["alpha"] * warns


def test_a_grey_level_is_that_of_the_space() -> None:
    """With pixels in [0, 1], eps = 0.03 is eight grey levels."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        attacks.create("pgd", ConvNet(), eps=0.03, alpha=0.01, space=PixelSpace(0.0, 1.0, 0.0, 1.0))
    with pytest.warns(UserWarning, match=r"pixel values of \[0, 1\]"):
        attacks.create("pgd", ConvNet(), eps=0.003, space=PixelSpace(0.0, 1.0, 0.0, 1.0))


@WAYS_OF_GIVING_EPS
@pytest.mark.parametrize(
    "eps", [255.5, 8 * 255, torch.tensor(256.0), torch.full((6,), 300.0), TruncatedNormalEps(upper=256)]
)
def test_eps_above_the_whole_range_is_refused(give: Callable[[Any], Any], eps: Any) -> None:
    with pytest.raises(
        ValueError, match=r"eps must be at most 255, the whole pixel range \[0, 255\] of PixelSpace.unit"
    ):
        attack = give(eps)
        if isinstance(attack, attacks.Attack):
            images, labels = batch()
            attack(images, attack.true_labels(labels))  # the values of a tensor are looked at with the images


def test_the_whole_range_is_that_of_the_space() -> None:
    pixels_in_0_1 = PixelSpace(0.0, 1.0, 0.0, 1.0)
    assert attacks.create("pgd", ConvNet(), eps=1, space=pixels_in_0_1).eps == 1
    with pytest.raises(ValueError, match=r"eps must be at most 1, the whole pixel range \[0, 1\] of .*, got 8"):
        attacks.create("pgd", ConvNet(), eps=8, space=pixels_in_0_1)
    with pytest.raises(ValueError, match=r"eps must be at most 255, .* got 2040"):
        attacks.create("fgsm", ConvNet()).at_each(*batch(), eps=[8, 2040])


def test_an_l2_norm_may_be_larger_than_a_pixels_range() -> None:
    images, labels = batch()
    attacks.create("fast_grad_l2", ConvNet(), eps=1000)(images, labels, eps=torch.full((6,), 500.0))


@pytest.mark.parametrize("text", ["8/255", " 8 / 255 "])
@pytest.mark.parametrize("option", ["eps", "alpha"])
def test_a_fraction_as_text_is_explained(option: str, text: str) -> None:
    with pytest.raises((TypeError, ValueError), match=rf"^{option} must .*: sizes are in pixel .* scale is 8 here$"):
        attacks.create("pgd", ConvNet(), **{option: text})
