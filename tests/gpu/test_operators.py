"""Every operator against its CPU result: steps and random numbers bit for bit, sums and exponentials to a rounding."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from fastadv import PixelSpace, ops, reference
from tests.gpu.device import DEVICE, SIDE, moved
from tests.ops.cases import DTYPES, SHAPES, SPACES, Operands, operands
from tests.ops.test_boundaries import flat
from tests.ops.test_from_pixels import every_other, random_pixels
from tests.ops.test_steps import STEPS

pytestmark = pytest.mark.gpu


def on_both(step: str, o: Operands, alpha: Any, eps: Any, space: Any, first: bool) -> tuple[Tensor, Tensor]:
    """(result on the device, result on the CPU) of one step on the same operands."""
    results = []
    for where in (moved, Tensor.clone):
        part = Operands(*(where(tensor) for tensor in (o.adv, o.clean, o.grad)))
        amounts = [where(amount) if isinstance(amount, Tensor) else amount for amount in (alpha, eps)]
        results.append(STEPS[step](ops, part, part.adv if first else part.clean, *amounts, space))
    assert results[0].device.type == DEVICE.type
    return results[0].cpu(), results[1]


def assert_same(step: str, result: Tensor, expected: Tensor) -> None:
    if step != "l2":
        assert torch.equal(result, expected), f"{(result != expected).sum()} of {result.numel()} differ"
        return
    rounding = max(torch.finfo(result.dtype).eps, torch.finfo(torch.float32).eps)  # norms are summed in another order
    torch.testing.assert_close(result, expected, rtol=2 * rounding, atol=4e-5 if result.dtype.itemsize > 2 else 0.02)


@pytest.mark.parametrize("channels_last", [False, True], ids=["contiguous", "channels_last"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [*SHAPES, (8, 3, SIDE, SIDE), (128, 3, 32, 32)], ids=str)
@pytest.mark.parametrize("step", STEPS)
def test_steps(step: str, shape: tuple[int, ...], dtype: torch.dtype, channels_last: bool) -> None:
    space = SPACES["imagenet"]
    o = operands(shape, dtype, space, channels_last)
    result, expected = on_both(step, o, 1.5, 8.0, space, first=False)
    assert_same(step, result, expected)
    assert result.stride() == expected.stride()


@pytest.mark.parametrize("first", [False, True], ids=["iterative", "first"])
@pytest.mark.parametrize("unaligned", [False, True], ids=["aligned", "unaligned"])
@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("step", STEPS)
def test_amounts_per_example(step: str, dtype: torch.dtype, space: Any, unaligned: bool, first: bool) -> None:
    o = operands((5, 3, 9, 11), dtype, space, unaligned=unaligned)
    alpha, eps = torch.tensor([0.0, 1.0, -2.0, 5.0, 16.0]), torch.tensor([16.0, 0.0, 0.5, 3.0, 40.0])
    assert_same(step, *on_both(step, o, alpha, eps, space, first))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("step", STEPS)
def test_elements_before_and_behind_the_packs(step: str, dtype: torch.dtype) -> None:
    width = 16 // dtype.itemsize
    for offset in range(width):
        for size in (1, width - 1, width + 1, 3 * width + 1, 256 * width + 1):
            assert_same(step, *on_both(step, flat(3, max(size, 1), dtype, offset), 2.0, 9.0, SPACES["raw"], False))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_drawn_eps(dtype: torch.dtype) -> None:
    for n in (0, 1, 255, 257, 100_000):
        eps = torch.empty(n, dtype=dtype, device=DEVICE)
        ops.truncated_normal_(eps, seed=5, offset=3)
        assert torch.equal(eps.cpu(), ops.truncated_normal_(torch.empty(n, dtype=dtype), seed=5, offset=3))
    assert torch.equal(ops.sample_eps(1000, seed=5, device=DEVICE).cpu(), ops.sample_eps(1000, seed=5))


@pytest.mark.parametrize("channels_last", [False, True], ids=["contiguous", "channels_last"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [*SHAPES, (3, 5, 9, 11), (8, 3, SIDE, SIDE), (128, 3, 32, 32)], ids=str)
def test_from_pixels(shape: tuple[int, ...], dtype: torch.dtype, channels_last: bool) -> None:
    space = SPACES["imagenet"] if shape[1] == 3 else PixelSpace(1.0, [c + 2.0 for c in range(shape[1])])
    for offset in (0, 1):
        pixels, mirrored = random_pixels(shape, channels_last, offset), every_other(shape[0])
        for flags in (None, mirrored):
            expected = ops.from_pixels(pixels, flags, dtype, space)
            result = ops.from_pixels(moved(pixels), None if flags is None else moved(flags), dtype, space)
            assert torch.equal(result.cpu(), expected) and result.stride() == expected.stride()
            room = moved(torch.zeros(pixels.numel() + 1, dtype=dtype))  # images one element behind an aligned address
            images = room.as_strided(pixels.shape, pixels.stride(), 1)
            ops.from_pixels_(images, moved(pixels), None if flags is None else moved(flags), space)
            assert torch.equal(images.cpu(), expected)


def logits_of(rows: int, classes: int, dtype: torch.dtype) -> Tensor:  # [N, K]
    return (4 * torch.randn(rows, classes, generator=torch.Generator().manual_seed(classes))).to(dtype)


@pytest.mark.parametrize("shape", [(0, 5), (1, 2), (33, 129), (64, 1000), (3, 1025), (2, 21_841)], ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("rule", ["label", "predicted", "least_likely", "random", "entropy"])
def test_target_grad(rule: str, dtype: torch.dtype, shape: tuple[int, int]) -> None:
    logits = logits_of(*shape, dtype)
    labels = torch.arange(shape[0]) % shape[1] if rule == "label" else None
    moved_labels = None if labels is None else moved(labels)
    result = ops.target_grad(moved(logits), rule, moved_labels, 0.1, seed=3, offset=2)
    expected = ops.target_grad(logits, rule, labels, 0.1, seed=3, offset=2)
    assert torch.equal(result.target.cpu(), expected.target)
    torch.testing.assert_close(result.dlogits.cpu(), expected.dlogits)


@pytest.mark.parametrize("margin", [0.0, 20.0, 150.0, 900.0])
@pytest.mark.parametrize("shape", [(33, 129), (3, 1025)], ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("rule", ["predicted", "entropy"])
def test_scaled_target_grad(rule: str, dtype: torch.dtype, shape: tuple[int, int], margin: float) -> None:
    logits = logits_of(*shape, dtype)
    logits[:, 3] += margin
    result, expected = ops.scaled_target_grad(moved(logits), rule), ops.scaled_target_grad(logits, rule)
    power = torch.exp2((result.exponent.cpu() - expected.exponent).double())[:, None]  # or 2, where a rounding decides
    torch.testing.assert_close((result.dlogits.cpu() * power).to(dtype), expected.dlogits)


@pytest.mark.parametrize("shape", [(0, 5), (33, 129), (64, 1000), (3, 1025), (2, 21_841)], ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("rule", reference.MARGINS)
def test_margin_grad(rule: str, dtype: torch.dtype, shape: tuple[int, int]) -> None:
    logits, labels = logits_of(*shape, dtype), torch.arange(shape[0]) % shape[1]
    targets = (labels + 2) % shape[1]
    for operator in (ops.target_grad, ops.scaled_target_grad):
        result = operator(moved(logits), rule, moved(labels), targets=moved(targets))
        expected = operator(logits, rule, labels, targets=targets)
        torch.testing.assert_close(tuple(each.cpu() for each in result), tuple(expected))


@pytest.mark.parametrize("shape", [(0, 5), (33, 129), (64, 1000), (3, 1025), (2, 21_841)], ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("rule", reference.LOSSES)
def test_row_losses(rule: str, dtype: torch.dtype, shape: tuple[int, int]) -> None:
    logits, labels = logits_of(*shape, dtype), torch.arange(shape[0]) % shape[1]
    targets = (labels + 2) % shape[1]
    result = ops.row_losses(moved(logits), moved(labels), rule, moved(targets))
    torch.testing.assert_close(result.cpu(), ops.row_losses(logits, labels, rule, targets))


@pytest.mark.parametrize("unaligned", [False, True], ids=["aligned", "unaligned"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_keep_best(dtype: torch.dtype, shape: tuple[int, ...], unaligned: bool) -> None:
    o = operands(shape, dtype, unaligned=unaligned)
    better = torch.arange(shape[0]) % 2 == 0
    results = []
    for where in (moved, Tensor.clone):
        best, best_grad = where(o.clean), where(o.grad)
        ops.keep_best_(best, best_grad, where(o.adv), where(o.grad) + 1, where(better))
        results.append((best.cpu(), best_grad.cpu()))
    torch.testing.assert_close(*results, rtol=0, atol=0)


@pytest.mark.parametrize("shape", [(2, 10), (33, 129), (64, 1000), (3, 1025)], ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_mixed_cross_entropy(dtype: torch.dtype, shape: tuple[int, int]) -> None:
    labels = torch.arange(shape[0]) % shape[1]
    results = []
    for where in (moved, Tensor.clone):
        logits = where(logits_of(*shape, dtype)).requires_grad_()
        loss = ops.mixed_cross_entropy(logits, where(labels), shape[0] // 2, 0.3, 0.1)
        loss.backward()
        results.append((loss.detach().cpu(), logits.grad.cpu()))
    torch.testing.assert_close(results[0], results[1])


@pytest.mark.parametrize("margin", [0.0, 20.0, 150.0])
@pytest.mark.parametrize("shape", [(2, 10), (33, 129), (3, 1025)], ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_scaled_kl_grad(dtype: torch.dtype, shape: tuple[int, int], margin: float) -> None:
    clean, adv = logits_of(*shape, dtype), 0.9 * logits_of(*shape, dtype)
    for each in (clean, adv):
        each[:, 3] += margin
    found, expected = (ops.scaled_kl_grad(where(adv), where(clean)) for where in (moved, Tensor.clone))
    power = torch.exp2((found.exponent.cpu() - expected.exponent).double())[:, None]  # or 2, where a rounding decides
    torch.testing.assert_close((found.dlogits.cpu() * power).to(dtype), expected.dlogits)


@pytest.mark.parametrize("shape", [(2, 10), (33, 129), (64, 1000), (3, 1025)], ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_trades_loss(dtype: torch.dtype, shape: tuple[int, int]) -> None:
    labels = torch.arange(shape[0]) % shape[1]
    results = []
    for where in (moved, Tensor.clone):
        leaves = [where(factor * logits_of(*shape, dtype)).requires_grad_() for factor in (1.0, 0.9)]
        loss = ops.trades_loss(*leaves, where(labels), 6.0, 0.1)
        loss.backward()
        results.append([tensor.detach().cpu() for tensor in (loss, *(leaf.grad for leaf in leaves))])
    torch.testing.assert_close(results[0], results[1])


REPEATED: dict[str, Callable[[], Tensor]] = {
    step: lambda step=step: (lambda o: STEPS[step](ops, o, o.clean, 1.0, 8.0, SPACES["raw"]))(
        Operands(*(moved(tensor) for tensor in vars(operands((16, 3, SIDE, SIDE))).values()))
    )
    for step in STEPS
}
REPEATED["mixed"] = lambda: ops.mixed_cross_entropy(
    moved(logits_of(512, 1000, torch.float32)), moved(torch.arange(512)), 256
)
REPEATED["trades"] = lambda: ops.trades_loss(
    *(moved(factor * logits_of(512, 1000, torch.float32)) for factor in (1.0, 0.9)), moved(torch.arange(512))
)


@pytest.mark.parametrize("name", REPEATED)
def test_a_run_repeats_bit_for_bit(name: str) -> None:
    """Sums in a fixed order, no atomics: a result that moves is a race."""
    first = REPEATED[name]()
    assert all(torch.equal(first, REPEATED[name]()) for _ in range(4))
