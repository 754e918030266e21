"""Tensors of more than 2^31 and 2^32 elements over sparse files: only the first and last blocks of each launch run.

Run by test_simt.py with FASTADV_SIMT_ENDS; the elements that those blocks handle are compared with the reference.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from fastadv import PixelSpace, ops, reference

IMAGE = (3, 299, 299)
SIZE = 3 * 299 * 299
CASES = {"2^31": 2**31 // SIZE + 2, "2^32": 2**32 // SIZE + 2}  # examples
EDGE = 1000  # elements compared at either end; the blocks that run handle more


@pytest.fixture
def sparse(tmp_path: Path):
    """Makes tensors of zeros that take no memory until they are written."""

    def make(*shape: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.bin"
        count = torch.Size(shape).numel()
        return torch.from_file(str(path), shared=True, size=count, dtype=dtype).view(shape)

    return make


def ends(tensor: Tensor) -> tuple[Tensor, Tensor]:
    """The first and the last example, copied."""
    return tensor[:1].clone(), tensor[-1:].clone()


def filled(tensor: Tensor, seed: int, low: float, high: float) -> Tensor:
    """Random numbers in the first and the last example."""
    generator = torch.Generator().manual_seed(seed)
    for example in (tensor[0], tensor[-1]):
        example.copy_(low + (high - low) * torch.rand(example.shape, generator=generator))
    return tensor


STEPS = {
    "sign": lambda m, adv, grad, eps, n: m.sign_step_(adv, adv, grad, 2.0, eps),
    "linf": lambda m, adv, grad, eps, n: m.normalized_step_(adv, adv, grad, 2.0, eps, "linf"),
    "l2": lambda m, adv, grad, eps, n: m.normalized_step_(adv, adv, grad, 200.0, eps, "l2"),
    "noise": lambda m, adv, grad, eps, n: m.noise_step_(adv, adv, eps, "uniform", 5, n, PixelSpace.raw()),
}


@pytest.mark.parametrize("examples", CASES.values(), ids=CASES)
@pytest.mark.parametrize("step", STEPS)
def test_steps(sparse, step: str, examples: int) -> None:
    adv, grad = filled(sparse(examples, *IMAGE), 1, 0, 255), filled(sparse(examples, *IMAGE), 2, -1, 1)
    eps = torch.full((examples,), 3.0)
    eps[-1] = 150.0
    expected = [
        STEPS[step](reference, image, gradient, eps[at], offset)
        for image, gradient, at, offset in zip(
            ends(adv), ends(grad), (slice(0, 1), slice(-1, None)), (0, examples - 1), strict=True
        )
    ]
    before = adv[-1].flatten()[-EDGE:].clone()
    STEPS[step](ops, adv, grad, eps, 0)
    first, last = adv[0].flatten()[:EDGE], adv[-1].flatten()[-EDGE:]
    torch.testing.assert_close(first, expected[0].flatten()[:EDGE])
    torch.testing.assert_close(last, expected[1].flatten()[-EDGE:])
    assert not torch.equal(last, before)


@pytest.mark.parametrize("examples", CASES.values(), ids=CASES)
def test_a_step_with_momentum_and_the_best_iterate(sparse, examples: int) -> None:
    adv, previous, clean = (filled(sparse(examples, *IMAGE), seed, 0, 255) for seed in (1, 2, 3))
    grad = filled(sparse(examples, *IMAGE), 4, -1, 1)
    parts = [[each[end].clone() for each in (adv, previous, clean, grad)] for end in (slice(0, 1), slice(-1, None))]
    ops.apgd_step_(adv, previous, clean, grad, 4.0, 100.0)
    ops.keep_best_(clean, None, grad, None, torch.arange(examples) == examples - 1)
    for part in parts:
        reference.apgd_step_(*part, 4.0, 100.0)
    for found, (first, last) in zip((adv, previous, clean), zip(*parts, strict=True), strict=False):
        if found is clean:
            last = parts[1][3]
        assert torch.equal(found[0].flatten()[:EDGE], first.flatten()[:EDGE])
        assert torch.equal(found[-1].flatten()[-EDGE:], last.flatten()[-EDGE:])


@pytest.mark.parametrize("examples", CASES.values(), ids=CASES)
def test_pixels(sparse, examples: int) -> None:
    pixels = filled(sparse(examples, *IMAGE, dtype=torch.uint8), 4, 0, 255)
    mirrored = torch.arange(examples) == examples - 1
    images = ops.from_pixels(pixels, mirrored, torch.bfloat16, PixelSpace.imagenet())
    first, last = (
        reference.from_pixels(part, flag, torch.bfloat16, PixelSpace.imagenet())
        for part, flag in zip(ends(pixels), (mirrored[:1], mirrored[-1:]), strict=True)
    )
    assert torch.equal(images[0].flatten()[:EDGE], first.flatten()[:EDGE])
    assert torch.equal(images[-1].flatten()[-EDGE:], last.flatten()[-EDGE:])


@pytest.mark.parametrize("elements", [2**31, 2**32], ids=["2^31", "2^32"])
@pytest.mark.parametrize("classes", [1000, 1025])
def test_rows_of_logits(sparse, classes: int, elements: int) -> None:
    rows = elements // classes + 2
    logits = filled(sparse(rows, classes), 3, -5, 5)
    result = ops.target_grad(logits, "predicted")
    for row, part in ((0, logits[:1]), (rows - 1, logits[-1:])):
        expected = reference.target_grad(part, "predicted")
        assert result.target[row] == expected.target[0]
        torch.testing.assert_close(result.dlogits[row], expected.dlogits[0])


def test_draws(sparse) -> None:
    n = 2**32 + 5
    eps = ops.truncated_normal_(sparse(n), seed=1)
    for start in (0, n - EDGE):
        assert torch.equal(eps[start:][:EDGE], ops.sample_eps(EDGE, seed=1, offset=start).bfloat16())
