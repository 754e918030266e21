"""N-FGSM against the method written out."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy

from fastadv import PixelSpace, attacks, ops
from tests.attacks.models import ConvNet, batch

SPACE = PixelSpace.imagenet()


@pytest.mark.parametrize(("options", "noise", "alpha"), [({}, 16, 8), ({"noise": 0.5, "alpha": 3}, 4, 3)])
def test_agrees_with_the_method_written_out(options: dict[str, Any], noise: float, alpha: float) -> None:
    model, (images, labels) = ConvNet().double().eval(), batch(6, SPACE, torch.float64)
    start = images.clone()
    ops.noise_step_(start, images, noise, "uniform", 3, 0, SPACE)  # what is drawn is tests/ops's to test
    assert not torch.equal(start, images)
    x = start.requires_grad_()  # [6, 3, 8, 8]
    (grad,) = torch.autograd.grad(cross_entropy(model(x), labels), x)
    std = torch.tensor(SPACE.std, dtype=torch.float64).view(3, 1, 1)
    low, high = (torch.tensor(bound, dtype=torch.float64).view(3, 1, 1) for bound in SPACE.bounds(torch.float64))
    expected = (x.detach() + alpha / std * grad.sign()).clamp(low, high)
    adv = attacks.NFGSM(model, eps=8, space=SPACE, seed=3, **options)(images, labels)
    torch.testing.assert_close(adv, expected, rtol=0, atol=1e-14)


def test_sizes_of_each_example() -> None:
    """An eps for each: noise and step are as large as in a call with that eps alone."""
    model, (images, labels) = ConvNet().double().eval(), batch(3, SPACE, torch.float64)
    eps = torch.tensor([2.0, 8.0, 16.0], dtype=torch.float64)
    adv = attacks.NFGSM(model, eps=eps, space=SPACE, seed=3)(images, labels)
    for row, size in enumerate(eps.tolist()):
        whole = attacks.NFGSM(model, eps=size, space=SPACE, seed=3)(images, labels)
        torch.testing.assert_close(adv[row], whole[row], rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"noise": -1}, "noise must be a number at least 0"),
        ({"noise": float("inf")}, "noise must be a number at least 0"),
        ({"alpha": -1}, "alpha must be zero or more"),
        ({"steps": 2}, "n_fgsm has no option steps"),
    ],
)
def test_options_that_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises((ValueError, TypeError), match=said):
        attacks.create("n_fgsm", ConvNet(), eps=8, **options)
