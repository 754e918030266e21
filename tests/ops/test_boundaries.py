"""Sizes one below, at and above every edge of a kernel: a pack, a block, a grid, a chunk, a warp's row of classes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fastadv import PixelSpace, ops, reference
from tests.ops.cases import DTYPES, at_odd_offset, operands
from tests.ops.test_steps import STEPS, Operands, assert_same

BLOCK = 256  # threads
GRID = 3 * BLOCK  # threads of the largest grid where the kernels run on a host
TILE = 2 * BLOCK  # packs of a block's tile of a long run, or twice as many; runs of two tiles are stepped in tiles
CHUNK = 16384  # elements that a norm sums at once


def around(*edges: int) -> list[int]:
    return sorted({max(edge + shift, 1) for edge in edges for shift in (-1, 0, 1)})


def flat(examples: int, size: int, dtype: torch.dtype, offset: int = 0) -> Operands:
    """Examples of one dimension, all operands equally far behind an aligned address."""
    generator = torch.Generator().manual_seed(size)

    def make(values: Tensor) -> Tensor:  # [N, size]
        return at_odd_offset(values.to(dtype), offset)

    pixels = torch.randint(0, 256, (2, examples, size), generator=generator)
    return Operands(make(pixels[0]), make(pixels[1]), make(torch.randn(examples, size, generator=generator)))


def check(step: str, examples: int, size: int, dtype: torch.dtype, offset: int = 0) -> None:
    results = []
    for module in (ops, reference):
        o = flat(examples, size, dtype, offset)
        eps = torch.linspace(1, 9, examples)
        results.append(STEPS[step](module, o, o.clean, 2.0, eps, PixelSpace.raw()))
    assert_same(step, *results)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("step", ["sign", "apgd_linf", "noise_uniform"])
def test_elements_before_and_behind_the_packs(step: str, dtype: torch.dtype) -> None:
    width = 16 // dtype.itemsize
    for offset in range(width):
        for size in {1, 2, width - 1, width, width + 1, 2 * width - offset, 3 * width + 1}:
            check(step, 1, size, dtype, offset)
            check(step, 3, size, dtype, offset)  # packs that span examples


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("step", ["sign", "noise_sign", "noise_normal"])
def test_packs_around_a_block_and_a_grid(step: str, dtype: torch.dtype) -> None:
    width = 16 // dtype.itemsize
    for size in around(BLOCK * width, GRID * width, 2 * GRID * width):
        check(step, 1, size, dtype, offset=1)


def in_tiles(step: str, shape: tuple[int, ...], dtype: torch.dtype, channels_last: bool, offset: int) -> None:
    """A first step and a later one, with an alpha and eps for each example and constants for each channel."""
    space = PixelSpace([120.0, 110.0, 100.0, 90.0][: shape[1]], [60.0, 55.0, 50.0, 45.0][: shape[1]])
    alpha, eps = torch.linspace(-2, 3, shape[0]), torch.linspace(1, 9, shape[0])
    for first in (True, False):
        results = []
        for module in (ops, reference):
            made = operands(shape, dtype, space, channels_last)
            o = Operands(*(at_odd_offset(tensor, offset) for tensor in (made.adv, made.clean, made.grad)))
            clean = o.clean if not first else o.adv if module is ops else o.adv.clone()
            results.append(STEPS[step](module, o, clean, alpha, eps, space))
        assert_same(step, *results)


# Runs of whole tiles, of a tile more, and of one element or pack less or more, at every distance from 16 bytes.
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("step", ["sign", "linf", "apgd_linf"])
@pytest.mark.parametrize(
    ("channels", "channels_last"), [(1, False), (3, False), (3, True), (4, True)], ids=["1", "3", "3 last", "4 last"]
)
def test_runs_around_tiles(step: str, dtype: torch.dtype, channels: int, channels_last: bool) -> None:
    width = 16 // dtype.itemsize
    runs = {TILE * width, 2 * TILE * width, 3 * TILE * width}
    sizes = {run + more for run in runs for more in (-width, -1, 0, 1, width + 1)}
    for offset, run in enumerate(sorted(sizes)):
        plane = -(-run // channels) if channels_last else run
        in_tiles(step, (2, channels, 1, plane), dtype, channels_last, offset % width)
        if run in runs:  # as most batches are: aligned
            in_tiles(step, (2, channels, 1, plane), dtype, channels_last, 0)


@pytest.mark.parametrize("step", ["l2", "linf", "apgd_l2"])
@pytest.mark.parametrize("size", around(BLOCK, CHUNK, 2 * CHUNK))
def test_elements_around_a_chunk(step: str, size: int) -> None:
    check(step, 2, size, torch.float32)


@pytest.mark.parametrize("step", ["l2", "linf", "apgd_l2"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_two_chunks_of_any_dtype(step: str, dtype: torch.dtype) -> None:
    check(step, 2, CHUNK + 3, dtype, offset=1)


@pytest.mark.parametrize("examples", around(3, 6))
def test_examples_around_a_grid(examples: int) -> None:
    check("l2", examples, 5, torch.float64)


@pytest.mark.parametrize("rows", [1, 7, 8, 9, 23, 24, 25])
@pytest.mark.parametrize("classes", [31, 32, 33, 1025])
def test_rows_around_a_block_and_a_grid(rows: int, classes: int) -> None:
    check_rows(rows, classes)


@pytest.mark.parametrize("classes", [63, 64, 65, 255, 256, 257, 1023, 1024, 1025, 1279, 1280, 1281])
def test_classes_around_a_warp_and_a_block(classes: int) -> None:
    check_rows(2, classes)


def check_rows(rows: int, classes: int) -> None:
    generator = torch.Generator().manual_seed(classes)
    logits = 4 * torch.randn(rows, classes, generator=generator)
    labels = torch.randint(0, classes, (rows,), generator=generator)
    labels[-1] = classes - 1
    result, expected = (module.target_grad(logits, "least_likely", None, 0.1) for module in (ops, reference))
    assert torch.equal(result.target, expected.target)
    torch.testing.assert_close(result.dlogits, expected.dlogits)
    losses = [module.mixed_cross_entropy(logits, labels, rows // 2, 0.3, 0.1) for module in (ops, reference)]
    torch.testing.assert_close(*losses)


@pytest.mark.parametrize("n", around(BLOCK, GRID, 2 * GRID))
def test_draws_around_a_block_and_a_grid(n: int) -> None:
    whole = ops.sample_eps(3 * GRID, seed=3)
    assert torch.equal(ops.sample_eps(n, seed=3), whole[:n])
