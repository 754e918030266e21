"""Rows with awkward numbers of classes: at the limits of a warp, a pack and the registers, at any address."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fastadv import ops, reference
from tests.ops.cases import DTYPES, at_odd_offset
from tests.ops.test_logits import assert_same_direction

NAN, INF = float("nan"), float("inf")
CLASSES = [1, 2, 3, 31, 32, 33, 128, 255, 256, 257, 1000, 1001, 1024, 1025]
ROWS = 3


def rows(classes: int, dtype: torch.dtype, offset: int) -> tuple[Tensor, Tensor]:
    """Logits [3, K], the last row's prediction certain, `offset` elements into a storage; labels [3]."""
    generator = torch.Generator().manual_seed(classes)
    logits = 4 * torch.randn(ROWS, classes, generator=generator)
    labels = torch.randint(0, classes, (ROWS,), generator=generator)
    labels[0] = classes - 1
    logits[2, labels[2]] += 200
    return at_odd_offset(logits.to(dtype), offset), labels


@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("classes", CLASSES)
def test_every_rule(classes: int, dtype: torch.dtype, offset: int) -> None:
    logits, labels = rows(classes, dtype, offset)
    for rule in reference.RULES:
        for smoothing in (0.0, 0.1):
            result, expected = (m.target_grad(logits, rule, labels, smoothing, seed=4) for m in (ops, reference))
            assert torch.equal(result.target, expected.target), rule
            torch.testing.assert_close(result.dlogits, expected.dlogits, msg=lambda text, rule=rule: f"{rule}: {text}")
            assert_same_direction(*(m.scaled_target_grad(logits, rule, labels, smoothing, 4) for m in (ops, reference)))


@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("classes", CLASSES)
def test_the_mixed_loss(classes: int, dtype: torch.dtype, offset: int) -> None:
    values, labels = rows(classes, dtype, offset)
    for smoothing in (0.0, 0.1):
        results = []
        for module in (ops, reference):
            logits = values.detach().requires_grad_()
            loss = module.mixed_cross_entropy(logits, labels, 1, 0.3, smoothing)
            loss.backward()
            results.append((loss.detach(), logits.grad))
            logits.grad = None
        torch.testing.assert_close(*results)


@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("classes", [2, 33, 257, 1000, 1001, 1024])
def test_of_equal_classes_the_first(classes: int, dtype: torch.dtype, offset: int) -> None:
    """With one thread or two, in one pass or not."""
    places = sorted({0, 1, 7, 8, 31, 32, 128, 256, classes // 2, classes - 2, classes - 1} & set(range(classes)))
    pairs = [(first, second) for first in places for second in places if first < second]
    logits = torch.zeros(len(pairs), classes)
    logits[torch.arange(len(pairs))[:, None], torch.tensor(pairs)] = 3.0  # every pair a row
    first = [pair[0] for pair in pairs]
    for sign, rule in ((1, "predicted"), (1, "entropy"), (-1, "least_likely")):
        assert ops.target_grad(at_odd_offset((sign * logits).to(dtype), offset), rule).target.tolist() == first


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("classes", [1025, 3000])
def test_of_equal_classes_the_first_of_many(classes: int, dtype: torch.dtype) -> None:
    """A block takes the row: in one thread, in one warp, in two warps."""
    logits = torch.zeros(3, classes, dtype=dtype)
    logits[0, [5, 5 + 256]], logits[1, [40, 43]], logits[2, [300, classes - 1]] = 3.0, 3.0, 3.0
    for sign, rule in ((1, "predicted"), (-1, "least_likely")):
        assert ops.target_grad(sign * logits, rule).target.tolist() == [5, 40, 300]


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("classes", [3, 33, 256, 1000, 1001, 1025])
def test_a_row_that_is_not_finite_does_not_touch_its_neighbours(classes: int, dtype: torch.dtype, bad: float) -> None:
    for place in (0, classes - 1):
        for offset in (0, 1):
            logits, labels = rows(classes, dtype, offset)
            alone = at_odd_offset(logits[::2].contiguous(), offset)
            logits[1, place] = bad
            logits[1, abs(place - 1)] = -60.0  # the smallest, beside it
            for rule in ("label", "least_likely", "entropy"):
                result, expected = (m.target_grad(logits, rule, labels) for m in (ops, reference))
                assert torch.equal(result.target, expected.target), rule
                if bad == -INF:  # a class without probability
                    torch.testing.assert_close(result.dlogits, expected.dlogits)
                    continue
                assert result.dlogits[1].isnan().all()
                assert torch.equal(result.dlogits[::2], ops.target_grad(alone, rule, labels[::2]).dlogits)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("value", [NAN, INF, -INF])
@pytest.mark.parametrize("classes", [3, 33, 256, 1001, 1025])
def test_a_row_of_nothing_else(classes: int, value: float, dtype: torch.dtype) -> None:
    logits = torch.full((1, classes), value, dtype=dtype)
    for rule in ("predicted", "least_likely", "entropy"):
        result = ops.target_grad(logits, rule)
        assert result.target.tolist() == [0] and result.dlogits.isnan().all()
