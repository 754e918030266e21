"""keep_best_: which examples are copied, against the reference, in every dtype, layout and alignment."""

from __future__ import annotations

import re

import pytest
import torch
from torch import Tensor

from fastadv import ops, reference
from tests.ops.cases import DTYPES, SHAPES, at_odd_offset


def test_by_hand() -> None:
    best, grad_of_best = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[0.1, 0.2], [0.3, 0.4]])
    candidate, grad = torch.tensor([[5.0, 6.0], [7.0, 8.0]]), torch.tensor([[0.5, 0.6], [0.7, 0.8]])
    better = torch.tensor([False, True])
    assert ops.keep_best_(best, grad_of_best, candidate, grad, better) is best
    assert best.tolist() == [[1.0, 2.0], [7.0, 8.0]]
    assert grad_of_best.tolist() == torch.tensor([[0.1, 0.2], [0.7, 0.8]]).tolist()
    ops.keep_best_(candidate, None, best, None, ~better)  # back to the best of the first
    assert candidate.tolist() == [[1.0, 2.0], [7.0, 8.0]]


def tensors(shape: tuple[int, ...], dtype: torch.dtype, channels_last: bool, offsets: tuple[int, ...]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    values = [torch.randn(shape, generator=generator).to(dtype) for _ in range(4)]
    if channels_last:
        values = [each.contiguous(memory_format=torch.channels_last) for each in values]
    return [at_odd_offset(each, offset) for each, offset in zip(values, offsets, strict=True)]


@pytest.mark.parametrize("offsets", [(0, 0, 0, 0), (1, 1, 1, 1), (3, 3, 0, 0), (1, 0, 1, 2)], ids=str)
@pytest.mark.parametrize("channels_last", [False, True], ids=["contiguous", "channels_last"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [*SHAPES, (3, 1, 1, 16383), (2, 1, 1, 16385)], ids=str)
def test_against_the_reference(shape, dtype, channels_last, offsets) -> None:
    """The offsets of best, best_grad, candidate and grad: alike, alike in pairs, and different."""
    better = torch.arange(shape[0]) % 3 != 1
    results = []
    for module in (ops, reference):
        best, best_grad, candidate, grad = tensors(shape, dtype, channels_last, offsets)
        module.keep_best_(best, best_grad, candidate, grad, better)
        results.append((best, best_grad))
    torch.testing.assert_close(*results, rtol=0, atol=0)


@pytest.mark.parametrize("better", [[], [True], [False], [False] * 5, [True] * 5], ids=str)
def test_none_and_all(better: list[bool]) -> None:
    best, candidate = torch.zeros(len(better), 7), torch.ones(len(better), 7)
    ops.keep_best_(best, None, candidate, None, torch.tensor(better, dtype=torch.bool))
    assert best.tolist() == [[float(each)] * 7 for each in better]


def test_bits_are_copied_as_they_are() -> None:
    """Also NaN, infinities and the sign of zero."""
    candidate = torch.tensor([[float("nan"), float("inf"), -0.0]])
    best = ops.keep_best_(torch.ones(1, 3), None, candidate, None, torch.tensor([True]))
    assert torch.equal(best.view(torch.int32), candidate.view(torch.int32))


def test_other_layouts_are_written_back() -> None:
    best, best_grad = torch.zeros(2, 3, 8, 6).transpose(2, 3), torch.zeros(2, 3, 6, 16)[..., ::2]
    candidate, grad = torch.randn(2, 3, 6, 8), torch.randn(2, 3, 6, 8)
    ops.keep_best_(best, best_grad, candidate, grad, torch.tensor([False, True]))
    assert (best[0] == 0).all() and torch.equal(best[1], candidate[1])
    assert (best_grad[0] == 0).all() and torch.equal(best_grad[1], grad[1])


B, C, Y = torch.zeros(2, 3), torch.ones(2, 3), torch.tensor([True, False])
MISTAKES = {
    "one gradient": (
        lambda: ops.keep_best_(B, None, C, C.clone(), Y),
        ValueError,
        "best_grad and grad must both be given, or neither",
    ),
    "shape": (lambda: ops.keep_best_(B, None, C[:1], None, Y), ValueError, "candidate must have best's shape [2, 3]"),
    "dtype": (
        lambda: ops.keep_best_(B, None, C.half(), None, Y),
        TypeError,
        "candidate must have best's dtype float32",
    ),
    "integers": (lambda: ops.keep_best_(B.int(), None, C.int(), None, Y), TypeError, "best must be float32, float64"),
    "better dtype": (lambda: ops.keep_best_(B, None, C, None, Y.int()), TypeError, "better must be bool, got int32"),
    "better shape": (
        lambda: ops.keep_best_(B, None, C, None, Y[:1]),
        ValueError,
        "better must be a contiguous tensor of shape [2], got [1]",
    ),
    "overlap": (lambda: ops.keep_best_(B, None, B, None, Y), ValueError, "candidate must not share memory with best"),
    "gradients overlap": (
        lambda: ops.keep_best_(B, C, torch.ones(2, 3), C, Y),
        ValueError,
        "best_grad must not share memory with grad",
    ),
    "gradient is the candidate": (
        lambda: ops.keep_best_(B, C, C, torch.ones(2, 3), Y),
        ValueError,
        "best_grad must not share memory with candidate",
    ),
    "requires grad": (
        lambda: ops.keep_best_(B.clone().requires_grad_(), None, C, None, Y),
        ValueError,
        "best is mutated in place and must not require grad",
    ),
}


@pytest.mark.parametrize(("call", "error", "message"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes(call, error, message: str) -> None:
    with pytest.raises(error, match=re.escape(message)):
        call()
    assert (B == 0).all() and (C == 1).all()
