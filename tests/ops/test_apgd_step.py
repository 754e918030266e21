"""apgd_step_: values by hand, the equations in plain PyTorch, the ball and the range; test_steps.py has the rest."""

from __future__ import annotations

import re

import pytest
import torch
from torch import Tensor

from fastadv import PixelSpace, ops, reference
from tests.ops.cases import SPACES

NAN = float("nan")
SHIFTED = PixelSpace(mean=-100.0, std=50.0)  # pixels are 2 to 7.1 in the model's input: zero is outside


@pytest.mark.parametrize(
    ("adv", "previous", "clean", "grad", "momentum", "expected"),
    [
        (100.0, 100.0, 100.0, 0.3, 1.0, 104.0),  # the first step is all of alpha = 4
        (100.0, 100.0, 100.0, -7.0, 1.0, 96.0),
        (104.0, 100.0, 100.0, 0.3, 0.75, 108.0),  # 3 forward, and a quarter of 4 for the previous step
        (104.0, 108.0, 100.0, 0.3, 0.75, 106.0),  # 3 forward, and a quarter of -4
        (106.0, 100.0, 100.0, 0.3, 0.75, 108.0),  # z is clipped to 108; 106 + 1.5 + 1.5 is in the ball no more
        (106.0, 106.0, 100.0, 0.3, 0.75, 107.5),  # without a previous step, three quarters of the way to z
        (104.0, 100.0, 100.0, 0.0, 0.75, 105.0),  # no gradient: the previous step alone
        (104.0, 100.0, 100.0, NAN, 0.75, 105.0),
        (104.0, 100.0, 100.0, 0.3, 0.0, 108.0),  # the previous step again
        (254.0, 252.0, 250.0, 1.0, 0.75, 255.0),  # the range
        (1.0, 3.0, 5.0, -1.0, 0.75, 0.0),
        (120.0, 120.0, 100.0, NAN, 1.0, 108.0),  # from outside the ball
    ],
)
@pytest.mark.parametrize("space", [*SPACES.values(), SHIFTED], ids=[*SPACES, "shifted"])
def test_linf_by_hand(adv, previous, clean, grad, momentum, expected, space) -> None:
    def full(pixel: float) -> Tensor:
        return space.from_pixels(torch.full((1, 3, 2, 2), pixel), torch.float64)

    result, before = full(adv), full(previous)
    gradient = torch.full((1, 3, 2, 2), grad, dtype=torch.float64)
    assert ops.apgd_step_(result, before, full(clean), gradient, 4.0, 8.0, space, momentum=momentum) is result
    torch.testing.assert_close(space.to_pixels(result), torch.full((1, 3, 2, 2), expected, dtype=torch.float64))
    assert torch.equal(before, full(adv))


@pytest.mark.parametrize("space", [PixelSpace.raw(), PixelSpace.unit(), SHIFTED], ids=["raw", "unit", "shifted"])
def test_l2_by_hand(space: PixelSpace) -> None:
    """From a distance of 5, 5 along (3, 4) leads to 10, so z is at 8, (4.8, 6.4) from the clean image.

    Half of that step and half of the previous one, (6, 0), lead to (6.9, 5.2), which is projected as well.
    """
    clean, adv, previous = (
        space.from_pixels(torch.tensor([values]), torch.float64)
        for values in ([100.0, 100.0], [103.0, 104.0], [97.0, 104.0])
    )
    gradient = torch.tensor([[6e-20, 8e-20]], dtype=torch.float64)
    for momentum, expected in ((1.0, [104.8, 106.4]), (0.5, [106.3888718, 104.8148019])):
        moved, before = adv.clone(), previous.clone()
        ops.apgd_step_(moved, before, clean, gradient, 5.0, 8.0, space, norm="l2", momentum=momentum)
        torch.testing.assert_close(
            space.to_pixels(moved), torch.tensor([expected], dtype=torch.float64), atol=1e-6, rtol=0
        )
        assert torch.equal(before, adv)


def steps_in_plain_pytorch(adv: Tensor, clean: Tensor, grads: list[Tensor], alpha: Tensor, eps: float, norm: str):
    """Algorithm 1's iterates in pixel values, as the authors' code writes them."""
    rows = alpha[:, None]  # [N, 1]

    def project(x: Tensor) -> Tensor:
        if norm == "linf":
            return torch.max(torch.min(x, clean + eps), clean - eps).clamp(0.0, 255.0)
        length = (x - clean).norm(dim=1, keepdim=True)
        return (clean + (x - clean) / (length + 1e-12) * length.clamp(max=eps)).clamp(0.0, 255.0)

    previous, iterates = adv, []
    for number, grad in enumerate(grads):
        a = 0.75 if number > 0 else 1.0
        direction = grad.sign() if norm == "linf" else grad / grad.norm(dim=1, keepdim=True)
        z = project(adv + rows * direction)
        adv, previous = project(adv + (z - adv) * a + (adv - previous) * (1 - a)), adv
        iterates.append(adv)
    return iterates


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_the_iterates_of_algorithm_1(space: PixelSpace, norm: str) -> None:
    generator = torch.Generator().manual_seed(0)
    pixels = 255 * torch.rand(4, 300, generator=generator, dtype=torch.float64)  # [N, C * H * W]
    eps = 8.0 if norm == "linf" else 60.0
    start = (pixels + eps * (2 * torch.rand(4, 300, generator=generator) - 1) / (1 if norm == "linf" else 20)).clamp(
        0, 255
    )
    grads = [torch.randn(4, 300, generator=generator, dtype=torch.float64) for _ in range(8)]
    alpha = torch.tensor([2.0, 1.0, 0.5, 0.25]) * eps
    std = torch.tensor(space.std, dtype=torch.float64).expand(3).repeat_interleave(100)  # [C * H * W]

    def images(flat: Tensor) -> Tensor:
        return space.from_pixels(flat.view(4, 3, 10, 10), torch.float64)

    clean, adv = images(pixels), images(start)
    previous = adv.clone()
    expected = steps_in_plain_pytorch(start, pixels, grads, alpha.double(), eps, norm)
    for number, (grad, right) in enumerate(zip(grads, expected, strict=True)):
        momentum = 0.75 if number > 0 else 1.0
        of_input = (grad * std).view(4, 3, 10, 10)  # the derivative by a pixel is that by the input over std
        ops.apgd_step_(adv, previous, clean, of_input, alpha, eps, space, norm=norm, momentum=momentum)
        torch.testing.assert_close(space.to_pixels(adv).flatten(1), right, rtol=0, atol=1e-9)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_ball_and_the_range_hold(dtype: torch.dtype, norm: str) -> None:
    """Linf: as sign_step_ holds them, to the last bit. L2: up to the rounding of each element."""
    space = SPACES["imagenet"]
    generator = torch.Generator().manual_seed(1)
    clean = space.from_pixels(255 * torch.rand(6, 3, 32, 32, generator=generator), dtype)
    eps = torch.linspace(0, 12, 6) * (1 if norm == "linf" else 20)
    adv, previous = clean.clone(), clean.clone()
    for number in range(6):
        grad = torch.randn(clean.shape, generator=generator).to(dtype)
        ops.apgd_step_(adv, previous, clean, grad, 2 * eps, eps, space, norm=norm, momentum=0.75 if number else 1.0)
        if norm == "linf":
            within = ops.sign_step_(adv.clone(), clean, torch.zeros_like(adv), 0.0, eps, space)
            assert torch.equal(within, adv)
        lower, upper = (torch.tensor(bound, dtype=dtype).view(3, 1, 1) for bound in space.bounds(dtype))
        assert (adv >= lower).all() and (adv <= upper).all()
    delta = (adv - clean).double() * torch.tensor(space.std).double().view(3, 1, 1)
    if norm == "l2":
        rounding = 255 * torch.finfo(dtype).eps * clean[0].numel() ** 0.5
        assert (delta.flatten(1).norm(dim=1) <= eps + rounding).all()
    assert (adv[0] == clean[0]).all() and (delta[1:].flatten(1).abs().amax(1) > 0).all()


def test_an_l2_step_whose_range_excludes_zero() -> None:
    """Elements behind an example's last are read as zeros, which must add nothing to a distance."""
    generator = torch.Generator().manual_seed(2)
    clean = SHIFTED.from_pixels(255 * torch.rand(3, 1, 1, 1027, generator=generator), torch.float32)
    results = []
    for module in (ops, reference):
        adv, previous, grad = clean.clone(), clean.clone(), torch.randn(clean.shape, generator=generator.manual_seed(3))
        for _ in range(3):
            module.apgd_step_(adv, previous, clean, grad, 30.0, 40.0, SHIFTED, norm="l2")
        results.append(adv)
    torch.testing.assert_close(*results)
    assert not torch.equal(results[0], clean)


X = torch.full((2, 3, 4, 4), 100.0)
MISTAKES = {
    "previous is adv": (
        lambda adv: ops.apgd_step_(adv, adv, X, X.clone(), 1, 8),
        ValueError,
        "previous must not share",
    ),
    "clean is adv": (
        lambda adv: ops.apgd_step_(adv, X, adv, X.clone(), 1, 8),
        ValueError,
        "clean must not share memory",
    ),
    "previous is clean": (
        lambda adv: ops.apgd_step_(adv, X, X, X.clone(), 1, 8),
        ValueError,
        "previous must not share memory with clean",
    ),
    "previous is grad": (
        lambda adv: ops.apgd_step_(adv, X, X.clone(), X, 1, 8),
        ValueError,
        "previous must not share memory with grad",
    ),
    "previous shape": (
        lambda adv: ops.apgd_step_(adv, X[:1], X, X.clone(), 1, 8),
        ValueError,
        "previous must have adv's shape [2, 3, 4, 4], got [1, 3, 4, 4]",
    ),
    "previous dtype": (
        lambda adv: ops.apgd_step_(adv, X.double(), X, X.clone(), 1, 8),
        TypeError,
        "previous must have adv's dtype float32, got float64",
    ),
    "previous requires grad": (
        lambda adv: ops.apgd_step_(adv, X.clone().requires_grad_(), X, X.clone(), 1, 8),
        ValueError,
        "previous is mutated in place and must not require grad",
    ),
    "norm": (
        lambda adv: ops.apgd_step_(adv, adv.clone(), X, X.clone(), 1, 8, norm="l1"),
        ValueError,
        "apgd_step_: norm must be 'l2' or 'linf', got 'l1'",
    ),
    "momentum": (
        lambda adv: ops.apgd_step_(adv, adv.clone(), X, X.clone(), 1, 8, momentum=1.5),
        ValueError,
        "momentum must be in [0, 1], got 1.5",
    ),
    "momentum is NaN": (
        lambda adv: ops.apgd_step_(adv, adv.clone(), X, X.clone(), 1, 8, momentum=NAN),
        ValueError,
        "momentum must be in [0, 1], got nan",
    ),
    "eps": (lambda adv: ops.apgd_step_(adv, adv.clone(), X, X.clone(), 1, -8), ValueError, "eps must be zero or more"),
}


@pytest.mark.parametrize(("call", "error", "message"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes(call, error, message: str) -> None:
    adv = X.clone()
    with pytest.raises(error, match=re.escape(message)):
        call(adv)
    assert torch.equal(adv, X)
