"""What holds for any images and any gradient, finite or not (Hypothesis)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fastadv import PixelSpace, ops
from tests.ops.cases import DTYPES, SPACES

SHAPES = st.tuples(st.integers(1, 4), st.just(3), st.integers(1, 7), st.integers(1, 7))
FLOATS = st.floats(width=32, allow_nan=True, allow_infinity=True)
EPS = st.floats(0, 64)


@st.composite
def cases(draw, finite: bool = False):
    """(pixels of adv and clean, gradient, alpha, eps, space, channels_last)."""
    shape = draw(SHAPES)
    pixels = hnp.arrays(np.float32, shape, elements=st.floats(0, 255, width=32))
    gradient = hnp.arrays(np.float32, shape, elements=st.floats(-1e3, 1e3, width=32) if finite else FLOATS)
    adv, clean, grad = (torch.from_numpy(draw(array)) for array in (pixels, pixels, gradient))
    alpha, eps = draw(st.floats(-64, 64)), draw(EPS)
    layout = torch.channels_last if draw(st.booleans()) else torch.contiguous_format
    return *(t.contiguous(memory_format=layout) for t in (adv, clean, grad)), alpha, eps


def step(kind: str, adv, clean, grad, alpha, eps, space: PixelSpace) -> torch.Tensor:
    if kind == "sign":
        return ops.sign_step_(adv, clean, grad, alpha, eps, space)
    return ops.normalized_step_(adv, clean, grad, alpha, eps, kind, space)


@pytest.mark.parametrize("kind", ["sign", "l2", "linf"])
@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@settings(max_examples=25, deadline=None)
@given(case=cases())
def test_inside_the_ball_and_the_range(kind: str, space: PixelSpace, dtype: torch.dtype, case) -> None:
    adv, clean, grad, alpha, eps = case
    clean_in = space.from_pixels(clean, dtype)
    result = step(kind, space.from_pixels(adv, dtype), clean_in, grad.to(dtype), alpha, eps, space)
    # The range: exactly, in the stored dtype, with the bounds taken in exact arithmetic.
    lower, upper = ((side - np.array(space.mean)) / np.array(space.std) for side in (0.0, 255.0))
    wide = result.double()
    allowance = 1e-15 * max(1.0, float(np.abs([lower, upper]).max()))  # of the float64 bounds themselves
    per_channel = wide.movedim(1, -1).numpy()
    assert (per_channel >= lower - allowance).all() and (per_channel <= upper + allowance).all()
    # The ball: up to one rounding of the sum clean + eps.
    pixels = (wide - clean_in.double()) * torch.tensor(space.std, dtype=torch.float64).view(-1, 1, 1)
    rounding = 255 * 2 * torch.finfo(torch.promote_types(dtype, dtype)).eps
    size = pixels.flatten(1).norm(dim=1) if kind == "l2" else pixels.flatten(1).abs().amax(dim=1)
    elements = np.sqrt(pixels[0].numel()) if kind == "l2" else 1
    assert (size <= eps + elements * rounding).all()


@pytest.mark.parametrize("kind", ["sign", "l2", "linf"])
@settings(max_examples=50, deadline=None)
@given(case=cases(finite=True), exponent=st.integers(-60, 60))
def test_scaling_the_gradient_changes_nothing(kind: str, case, exponent: int) -> None:
    adv, clean, grad, alpha, eps = case
    grad = grad.double()
    results = [
        step(kind, adv.double(), clean.double(), scale * grad, alpha, eps, PixelSpace.raw())
        for scale in (1.0, 2.0**exponent)
    ]
    torch.testing.assert_close(results[0], results[1], rtol=1e-14, atol=1e-12)


@pytest.mark.parametrize("kind", ["sign", "l2", "linf"])
@settings(max_examples=50, deadline=None)
@given(case=cases(), seed=st.integers(0, 2**32 - 1))
def test_order_of_examples_does_not_matter(kind: str, case, seed: int) -> None:
    adv, clean, grad, alpha, _ = case
    n = adv.shape[0]
    generator = torch.Generator().manual_seed(seed)
    eps = 20 * torch.rand(n, generator=generator)
    order = torch.randperm(n, generator=generator)
    straight = step(kind, adv.clone(), clean, grad, alpha, eps, PixelSpace.raw())
    shuffled = step(kind, adv[order], clean[order], grad[order], alpha, eps[order], PixelSpace.raw())
    assert torch.equal(straight[order], shuffled)


@pytest.mark.parametrize("kind", ["sign", "l2", "linf"])
@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@settings(max_examples=15, deadline=None)
@given(case=cases())
def test_eps_zero_is_the_identity(kind: str, space: PixelSpace, dtype: torch.dtype, case) -> None:
    _, clean, grad, alpha, _ = case
    clean_in = space.from_pixels(clean, dtype)
    assert torch.equal(step(kind, clean_in.clone(), clean_in, grad.to(dtype), alpha, 0.0, space), clean_in)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(-(2**63), 2**63 - 1),
    offset=st.integers(0, 2**62),
    kind=st.sampled_from(["sign", "uniform", "truncated_normal", "normal"]),
    eps=EPS,
)
def test_noise_stays_in_the_ball_for_any_stream(seed: int, offset: int, kind: str, eps: float) -> None:
    clean, most = torch.full((2, 3, 5, 5), 128.0), 6 * eps if kind == "normal" else eps
    noise = ops.noise_step_(clean.clone(), clean, eps, kind, seed, offset) - clean
    assert noise.abs().max() <= most + 128 * torch.finfo(torch.float32).eps  # a rounding of the sum
