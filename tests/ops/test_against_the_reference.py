"""Every operator against its specification, over the arguments that both take (Hypothesis)."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import Tensor

from fastadv import PixelSpace, ops, reference
from tests.ops.cases import DTYPES, SPACES

INT64 = st.integers(-(2**63), 2**63 - 1)
OFFSETS = st.integers(0, 2**63 - 1)
# A seed, or a stream in a tensor: a seed and a number that is added to the offset.
SEEDS = INT64 | st.tuples(INT64, INT64).map(torch.tensor)
SIZES = st.floats(0, 64) | st.sampled_from([0.0, 0.1, 1e-30, 1e30, 1e308])
# Any positive number: the tails of float32 and what only a double holds.
POSITIVE = st.floats(1e-3, 1e3) | st.floats(0, exclude_min=True, allow_infinity=False) | st.just(2.0**63)
OF_DTYPE = pytest.mark.parametrize("dtype", DTYPES, ids=str)


def both(call: Callable[[ModuleType], Any]) -> tuple[Any, Any]:
    return call(ops), call(reference)


@st.composite
def images(draw: st.DrawFn, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor, PixelSpace]:
    """(adv, clean, gradient, space)."""
    shape = draw(st.tuples(st.integers(1, 3), st.just(3), st.integers(1, 5), st.integers(1, 5)))
    space = draw(st.sampled_from(list(SPACES.values())))
    pixels = hnp.arrays(np.float32, shape, elements=st.floats(0, 255, width=32))
    grad = draw(hnp.arrays(np.float32, shape, elements=st.floats(width=32)))
    adv, clean = (space.from_pixels(torch.from_numpy(draw(pixels)), dtype) for _ in range(2))
    return adv, clean, torch.from_numpy(grad).to(dtype), space


def amounts(numbers: st.SearchStrategy[float], n: int) -> st.SearchStrategy[float | Tensor]:
    """A number, or one for each of n examples."""
    return numbers | st.lists(numbers, min_size=n, max_size=n).map(lambda each: torch.tensor(each, dtype=torch.float64))


def assert_close_in(space: PixelSpace, result: Tensor, expected: Tensor, pixels: float) -> None:
    """Compare up to a rounding or two of the dtype, and a few pixel values."""
    rounding = 2 * torch.finfo(result.dtype).eps
    atol = pixels / min(space.std)
    torch.testing.assert_close(result, expected, rtol=rounding, atol=atol + rounding)


@OF_DTYPE
@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_sign_step(data: st.DataObject, dtype: torch.dtype) -> None:
    adv, clean, grad, space = data.draw(images(dtype))
    alpha, eps = data.draw(amounts(st.floats(-64, 64) | st.just(1e30), len(adv))), data.draw(amounts(SIZES, len(adv)))
    assert_close_in(space, *both(lambda m: m.sign_step_(adv.clone(), clean, grad, alpha, eps, space)), pixels=0)


@OF_DTYPE
@pytest.mark.parametrize("norm", reference.NORMS)
@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_normalized_step(data: st.DataObject, norm: str, dtype: torch.dtype) -> None:
    adv, clean, grad, space = data.draw(images(dtype))
    alpha, eps = data.draw(amounts(st.floats(-64, 64), len(adv))), data.draw(amounts(st.floats(0, 64), len(adv)))
    results = both(lambda m: m.normalized_step_(adv.clone(), clean, grad, alpha, eps, norm, space))
    assert_close_in(space, *results, pixels=255 * 1e-6)


@OF_DTYPE
@settings(max_examples=12, deadline=None)
@given(data=st.data(), kind=st.sampled_from(reference.NOISES), seed=SEEDS, offset=OFFSETS)
def test_noise_step(data: st.DataObject, kind: str, seed: int | Tensor, offset: int, dtype: torch.dtype) -> None:
    _, clean, _, space = data.draw(images(dtype))
    eps = data.draw(amounts(SIZES, len(clean)))
    results = both(lambda m: m.noise_step_(torch.empty_like(clean), clean, eps, kind, seed, offset, space))
    assert_close_in(space, *results, pixels=64 * 1e-6)


@OF_DTYPE
@settings(max_examples=8, deadline=None)
@given(data=st.data(), mirrored=st.booleans())
def test_from_pixels(data: st.DataObject, mirrored: bool, dtype: torch.dtype) -> None:
    shape = data.draw(st.tuples(st.integers(0, 3), st.just(3), st.integers(1, 5), st.integers(1, 5)))
    pixels = torch.from_numpy(data.draw(hnp.arrays(np.uint8, shape)))
    flags = torch.tensor(data.draw(st.lists(st.booleans(), min_size=shape[0], max_size=shape[0]))) if mirrored else None
    flags = flags if flags is None else flags.bool()
    space = data.draw(st.sampled_from(list(SPACES.values())))
    assert torch.equal(*both(lambda m: m.from_pixels(pixels, flags, dtype, space)))


@OF_DTYPE
@settings(max_examples=20, deadline=None)
@given(sigma=POSITIVE, upper=POSITIVE, seed=SEEDS, offset=OFFSETS)
def test_sizes(sigma: float, upper: float, seed: int | Tensor, offset: int, dtype: torch.dtype) -> None:
    most = torch.finfo(dtype).max / 2 if dtype != torch.float64 else 1e38  # beyond, a rounding may be infinite
    for call in (
        lambda m: m.sample_eps(3, sigma, upper, seed, offset),
        lambda m: m.truncated_normal_(torch.empty(3, dtype=dtype), sigma, upper, seed, offset),
    ):
        result, expected = (drawn.clamp(max=most) for drawn in both(call))
        torch.testing.assert_close(result, expected, rtol=torch.finfo(result.dtype).eps + 2e-6, atol=1e-7)


def logits_of(dtype: torch.dtype) -> st.SearchStrategy[Tensor]:
    """Logits [N, K] of ordinary, very confident and broken networks."""
    largest = min(torch.finfo(dtype).max, 1e300)
    shape = st.tuples(st.integers(1, 3), st.integers(2, 6))
    kinds = [
        st.floats(-10, 10),
        st.floats(-300, 300),
        st.sampled_from([0.0, 1.0, 20.0, 150.0, 900.0, 60_000.0]),
        st.floats(-largest, largest) | st.sampled_from([float("nan"), float("inf"), -float("inf"), 0.0]),
    ]
    return st.sampled_from(kinds).flatmap(
        lambda kind: hnp.arrays(np.float64, shape, elements=kind).map(lambda array: torch.from_numpy(array).to(dtype))
    )


@OF_DTYPE
@pytest.mark.parametrize("rule", reference.RULES)
@settings(max_examples=15, deadline=None)
@given(data=st.data(), smoothing=st.sampled_from([0.0, 0.1, 0.9]), seed=SEEDS, offset=OFFSETS)
def test_target_grad(
    data: st.DataObject, smoothing: float, seed: int | Tensor, offset: int, rule: str, dtype: torch.dtype
) -> None:
    logits = data.draw(logits_of(dtype))
    n, classes = logits.shape
    labels = torch.tensor(data.draw(st.lists(st.integers(0, classes - 1), min_size=n, max_size=n)))
    result, expected = both(lambda m: m.target_grad(logits, rule, labels, smoothing, seed, offset))
    assert torch.equal(result.target, expected.target)
    close = {"rtol": max(4 * torch.finfo(dtype).eps, 2e-5), "atol": 1e-7, "equal_nan": True}
    torch.testing.assert_close(result.dlogits, expected.dlogits, **close)
    result, expected = both(lambda m: m.scaled_target_grad(logits, rule, labels, smoothing, seed, offset))
    assert torch.equal(result.target, expected.target)
    # The cost of a tie whose logits are apart by a subnormal number: half of that is not a number of the dtype.
    smallest = 4 * torch.finfo(torch.float64 if dtype == torch.float64 else torch.float32).tiny
    apart = logits.amax(dim=1) - logits.amin(dim=1)  # [N]
    lost = (rule == "entropy") & (apart > 0) & (apart < smallest)  # [N]
    for row in range(n):
        if not lost[row]:
            assert_same_scaled(*((each.dlogits[row], each.exponent[row]) for each in (result, expected)), smoothing)


def assert_same_scaled(result: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor], smoothing: float) -> None:
    """Compare a row's derivative: its direction, and its size as far as float32 resolves it."""
    (grad, exponent), (right, right_exponent) = result, expected
    wide = grad.dtype == torch.float64
    if right_exponent < (-30 if wide else -10) and smoothing:
        return  # what the target wants is met up to a rounding, which is all that is left
    largest = right.abs().max()
    assert (exponent == -(2**30)) == (right_exponent == -(2**30))
    if not (largest > 0 and largest.isfinite()):
        torch.testing.assert_close(grad, right, equal_nan=True)
        return
    if grad.abs().max() < 0.5:  # of a derivative that is subnormal, which no float multiplies that far
        assert right_exponent <= (-1021 if wide else -125)
        assert torch.equal(grad.sign(), right.sign())
        return
    assert grad.abs().max() <= 1
    sizes = [
        scaled.double() * 2.0 ** (by - right_exponent).item()
        for scaled, by in ((grad, exponent), (right, right_exponent))
    ]
    if right_exponent < -(2**19):  # too small to distinguish
        sizes = [size / size.abs().max() for size in sizes]
    rounding = 2e-9 if wide else max(4 * torch.finfo(grad.dtype).eps, 1e-4)
    torch.testing.assert_close(*sizes, rtol=rounding, atol=rounding)


@OF_DTYPE
@settings(max_examples=15, deadline=None)
@given(data=st.data(), smoothing=st.floats(0, 0.99), lambda_=st.floats(0.01, 10))
def test_mixed_cross_entropy(data: st.DataObject, smoothing: float, lambda_: float, dtype: torch.dtype) -> None:
    values = data.draw(logits_of(dtype).filter(lambda logits: bool((logits.abs() < 1e30).all())))
    m, classes = values.shape
    labels = torch.tensor(data.draw(st.lists(st.integers(0, classes - 1), min_size=m, max_size=m)))
    k = data.draw(st.integers(0, m))
    found = []
    for module in (ops, reference):
        logits = values.clone().requires_grad_()
        loss = module.mixed_cross_entropy(logits, labels, k, lambda_, smoothing)
        loss.backward()
        found.append((loss.detach(), logits.grad))
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found[0][1], found[1][1], rtol=max(4 * torch.finfo(dtype).eps, 2e-5), atol=1e-6)
