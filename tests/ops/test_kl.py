"""scaled_kl_grad and trades_loss: by hand, against autograd and the reference, nearly equal and saturated rows."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from fastadv import ops, reference
from tests.ops.cases import DTYPES, at_odd_offset
from tests.ops.test_logits import gradient_penalty

NAN, INF = float("nan"), float("inf")
ROWS = [(0, 5), (1, 1), (1, 2), (33, 10), (3, 129), (5, 1000), (3, 1024), (2, 1025)]


def rows(shape: tuple[int, int], dtype: torch.dtype, offset: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Adversarial and clean logits [N, K], near each other or far, and labels [N]; the last row is certain in both."""
    generator = torch.Generator().manual_seed(shape[1])
    clean = 4 * torch.randn(shape, generator=generator)
    size = 10.0 ** torch.randint(-2, 2, (shape[0], 1), generator=generator)
    adv = clean + size * torch.randn(shape, generator=generator)
    labels = torch.randint(0, shape[1], shape[:1], generator=generator)
    if shape[0]:
        for each in (clean, adv):
            each[-1, labels[-1]] += 200
    return at_odd_offset(adv.to(dtype), offset), at_odd_offset(clean.to(dtype), offset), labels


def derivative(scaled: reference.ScaledKLGrad) -> Tensor:
    return scaled.dlogits.double() * torch.exp2(scaled.exponent.double())[:, None]


def losses(
    module: object, adv: Tensor, clean: Tensor, labels: Tensor, beta: float = 6.0, smoothing: float = 0.0
) -> tuple[Tensor, Tensor, Tensor]:
    """The loss, and its derivatives by the clean and the adversarial logits."""
    leaves = [each.detach().clone().requires_grad_() for each in (clean, adv)]
    loss = module.trades_loss(*leaves, labels, beta, smoothing)
    return (loss.detach(), *torch.autograd.grad(loss, leaves))


# p = (1/2, 1/2), q = (3/4, 1/4): KL(p || q) = log(2/3) / 2 + log(2) / 2 = log(4/3) / 2.
CLEAN, ADV = torch.zeros(1, 2, dtype=torch.float64), torch.tensor([[math.log(3), 0.0]], dtype=torch.float64)


def test_kl_by_hand() -> None:
    """q - p, by powers of two."""
    grad, exponent = ops.scaled_kl_grad(ADV, CLEAN)
    torch.testing.assert_close(grad, torch.tensor([[0.5, -0.5]], dtype=torch.float64))
    assert exponent.item() == -1


def test_loss_by_hand() -> None:
    """The cross-entropy is log 2, and its derivative p - (1, 0) = (-1/2, 1/2). The derivative of the divergence is
    q - p = (1/4, -1/4), and by the clean logits p_j (log p_j - log q_j - KL) = (-log(3) / 4, log(3) / 4).
    """
    loss, by_clean, by_adv = losses(ops, ADV, CLEAN, torch.tensor([0]), beta=2.0)
    assert loss.item() == pytest.approx(math.log(2) + 2 * math.log(4 / 3) / 2, rel=1e-15)
    one = torch.tensor([[1.0, -1.0]], dtype=torch.float64)
    torch.testing.assert_close(by_clean, (-1 / 2 - 2 * math.log(3) / 4) * one)
    torch.testing.assert_close(by_adv, 2 / 4 * one)


def test_a_mean_over_examples() -> None:
    loss, *grads = losses(ops, ADV.expand(4, 2), CLEAN.expand(4, 2), torch.zeros(4, dtype=torch.int64))
    alone, *of_one = losses(ops, ADV, CLEAN, torch.tensor([0]))
    torch.testing.assert_close(loss, alone)
    torch.testing.assert_close(grads, [grad.expand(4, 2) / 4 for grad in of_one])


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_derivatives_are_those_of_autograd(smoothing: float) -> None:
    adv, clean, labels = rows((16, 7), torch.float64)
    clean[-1], adv[-1] = 0.0, 1.0 * labels[-1]  # autograd rounds a certain row
    found, expected = (losses(module, adv, clean, labels, 6.0, smoothing) for module in (ops, reference))
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-13)
    leaf = adv.clone().requires_grad_()
    functional.kl_div(leaf.log_softmax(1), clean.softmax(1), reduction="sum").backward()
    torch.testing.assert_close(derivative(ops.scaled_kl_grad(adv, clean)), leaf.grad, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", ROWS, ids=str)
def test_kl_against_the_reference(shape: tuple[int, int], dtype: torch.dtype, offset: int) -> None:
    adv, clean, _ = rows(shape, dtype, offset)
    found, expected = (module.scaled_kl_grad(adv, clean) for module in (ops, reference))
    power = torch.exp2((found.exponent - expected.exponent).double())[:, None]  # or 2, where a rounding decides
    torch.testing.assert_close((found.dlogits * power).to(dtype), expected.dlogits, rtol=None, atol=None)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", ROWS[1:], ids=str)
def test_loss_against_the_reference(shape: tuple[int, int], dtype: torch.dtype, smoothing: float) -> None:
    adv, clean, labels = rows(shape, dtype)
    found, exact = (
        losses(ops, adv, clean, labels, 6.0, smoothing),
        losses(reference, adv.double(), clean.double(), labels, 6.0, smoothing),
    )
    for one, other in zip(found, exact, strict=True):
        torch.testing.assert_close(one, other.to(one.dtype), rtol=max(4e-6, torch.finfo(one.dtype).eps), atol=1e-7)


@pytest.mark.parametrize("size", [1e-1, 1e-3, 1e-5])
def test_nearly_equal_predictions(size: float) -> None:
    """The differences of p and q, and the divergence, have the precision of the logits' differences."""
    generator = torch.Generator().manual_seed(1)
    clean = torch.randn(8, 10, generator=generator)
    adv = clean + size * torch.randn(8, 10, generator=generator)
    exact = reference.scaled_kl_grad(adv.double(), clean.double())
    torch.testing.assert_close(derivative(ops.scaled_kl_grad(adv, clean)), derivative(exact), rtol=1e-4, atol=0)
    labels = torch.zeros(8, dtype=torch.int64)
    found, wide = losses(ops, adv, clean, labels, 1e6), losses(reference, adv.double(), clean.double(), labels, 1e6)
    for one, other in zip(found, wide, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-4, atol=1e-5)


def test_a_divergence_is_never_negative() -> None:
    """That of F.kl_div is, for a third of such rows: it subtracts two logarithms."""
    generator = torch.Generator().manual_seed(2)
    clean = 5 * torch.randn(500, 10, generator=generator)
    adv = clean + 1e-4 * torch.randn(500, 10, generator=generator)
    labels = torch.zeros(1, dtype=torch.int64)
    for one, other in zip(adv, clean, strict=True):
        cross_entropy, both = (ops.trades_loss(other[None], one[None], labels, beta) for beta in (0.0, 1e9))
        assert both > cross_entropy


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("margin", [18.0, 60.0, 150.0, 60_000.0])
def test_a_confident_network_keeps_its_gradient(margin: float, dtype: torch.dtype) -> None:
    """p = (1, e^-margin, e^-margin) for a certain class, and q - p = e^-margin (1 - e, e - 1, 0) after a step of 1."""
    clean, adv = torch.tensor([[margin, 0.0, 0.0]], dtype=dtype), torch.tensor([[margin, 1.0, 0.0]], dtype=dtype)
    for module in (ops, reference):
        grad, exponent = module.scaled_kl_grad(adv, clean)
        assert 0.5 <= grad[0, 1] < 1 and abs(grad[0, 2]) < 1e-7
        torch.testing.assert_close(grad[0, 0], -grad[0, 1], rtol=1e-6, atol=0)
        log_size = math.log(math.e - 1) - clean[0, 0].item()
        assert math.log2(grad[0, 1]) + exponent.item() == pytest.approx(log_size / math.log(2), rel=1e-6, abs=1e-2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("margin", [10.0, 30.0, 80.0])
def test_the_loss_of_a_confident_network(margin: float, dtype: torch.dtype) -> None:
    """p_1 = e^-margin, q_1 = e p_1: the divergence is p_1 (e - 2), its derivatives p_1 (1 - e, e - 1) and, by the clean
    logits, p_1 (1, -1).
    """
    clean, adv = torch.tensor([[margin, 0.0]], dtype=dtype), torch.tensor([[margin, 1.0]], dtype=dtype)
    p, beta = math.exp(-margin), 3.0
    loss, by_clean, by_adv = losses(ops, adv, clean, torch.tensor([0]), beta)
    near = {"rel": 1e-3 if margin == 10 else 1e-5}
    assert by_adv[0].tolist() == pytest.approx([beta * p * (1 - math.e), beta * p * (math.e - 1)], **near)
    assert by_clean[0].tolist() == pytest.approx([-p + beta * p, p - beta * p], **near)
    assert loss.item() == pytest.approx(p + beta * p * (math.e - 2), rel=1e-2) or margin > 10


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_a_confident_network_that_is_fooled(dtype: torch.dtype) -> None:
    """p = (1, e^-20), q = (e^-20, 1): the divergence is 20, and its derivative by the clean logits -40 p_0 p_1."""
    clean, adv = torch.tensor([[20.0, 0.0]], dtype=dtype), torch.tensor([[0.0, 20.0]], dtype=dtype)
    loss, by_clean, by_adv = losses(ops, adv, clean, torch.tensor([0]), 1.0)
    assert loss.item() == pytest.approx(20.0, rel=1e-6)
    assert by_adv[0].tolist() == pytest.approx([-1.0, 1.0], rel=1e-6)
    of_kl = 40 * math.exp(-20)
    assert by_clean[0].tolist() == pytest.approx([of_kl - math.exp(-20), math.exp(-20) - of_kl], rel=1e-5)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_classes_that_are_masked(dtype: torch.dtype) -> None:
    """Logits of -inf in both rows, as of classes that a network leaves out, change nothing."""
    clean, adv = (
        torch.tensor([[1.0, -INF, 0.5, -1.0]], dtype=dtype),
        torch.tensor([[0.5, -INF, 1.0, -1.0]], dtype=dtype),
    )
    kept = torch.tensor([0, 2, 3])
    loss, *grads = losses(ops, adv, clean, torch.tensor([2]))
    expected, *of_kept = losses(ops, adv[:, kept], clean[:, kept], torch.tensor([1]))
    torch.testing.assert_close(loss, expected)
    for grad, other in zip(grads, of_kept, strict=True):
        torch.testing.assert_close(grad[:, kept], other)
        assert grad[0, 1] == 0
    for module in (ops, reference):
        grad = module.scaled_kl_grad(adv, clean).dlogits
        torch.testing.assert_close(grad[:, kept], module.scaled_kl_grad(adv[:, kept], clean[:, kept]).dlogits)
        assert grad[0, 1] == 0


def test_an_impossible_class_diverges() -> None:
    loss, _, by_adv = losses(ops, torch.tensor([[0.0, -INF]]), torch.zeros(1, 2), torch.tensor([0]))
    assert loss == INF and by_adv[0].tolist() == [3.0, -3.0]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    ("clean", "adv", "exponent"),
    [
        ([3.0, 1.0, 2.0], [3.0, 1.0, 2.0], -(2**30)),  # equal predictions
        ([3.0, -INF, -INF], [2.0, -INF, -INF], -(2**30)),  # one class
        ([NAN, 0.0, 1.0], [0.0, 0.0, 1.0], 0),
        ([0.0, 0.0, 1.0], [0.0, NAN, 1.0], 0),
        ([INF, 0.0, 1.0], [0.0, 0.0, 1.0], 0),
        ([0.0, 0.0, 1.0], [-INF, -INF, -INF], 0),
    ],
    ids=str,
)
def test_rows_that_have_no_direction(clean: list[float], adv: list[float], exponent: int, dtype: torch.dtype) -> None:
    rows = [torch.tensor([row, [150.0, 0.0, other]], dtype=dtype) for row, other in ((adv, 1.0), (clean, 0.0))]
    for module in (ops, reference):
        grad, exponents = module.scaled_kl_grad(*rows)
        assert exponents[0] == exponent
        assert (grad[0].isnan() if exponent == 0 else grad[0] == 0).all()
        assert grad[1, 2] >= 0.5 and grad[1, 0] <= -0.5


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_a_scaled_loss_does_not_leave_half_precision(dtype: torch.dtype) -> None:
    """With GradScaler's initial scale of 2^16, small derivatives do not round to zero, and none overflows."""
    adv, clean, labels = rows((256, 10), dtype)
    clean[torch.arange(256), labels] += 12
    grads = []
    for module, wide in ((ops, False), (reference, True)):
        leaves = [(each.double() if wide else each).detach().clone().requires_grad_() for each in (clean, adv)]
        (65536.0 * module.trades_loss(*leaves, labels)).backward()
        grads.append([leaf.grad.double() for leaf in leaves])
    assert all(grad.isfinite().all() for grad in grads[0])
    torch.testing.assert_close(*grads, rtol=8 * torch.finfo(dtype).eps, atol=1e-5)


@pytest.mark.parametrize(
    "function",
    [
        lambda logits: ops.trades_loss(logits, logits.detach() + 1, torch.arange(4)),
        lambda logits: ops.trades_loss(logits.detach() + 1, logits, torch.arange(4)),
    ],
    ids=["clean", "adversarial"],
)
def test_one_derivative(function) -> None:
    """Without the error these would run and miss a term."""
    with pytest.raises(RuntimeError, match="trades_loss is differentiable once"):
        gradient_penalty(function)
    with pytest.raises(RuntimeError, match="trades_loss has no forward-mode derivative"):
        torch.func.jvp(function, (torch.randn(4, 5),), (torch.randn(4, 5),))


def test_logits_in_any_layout() -> None:
    adv, clean = torch.randn(7, 4).t(), torch.randn(7, 4).t()  # [4, 7], not contiguous
    labels = torch.arange(8)[::2] // 2  # [4]
    for found, expected in zip(
        losses(ops, adv, clean, labels), losses(ops, adv.contiguous(), clean.contiguous(), labels), strict=True
    ):
        assert torch.equal(found, expected)
    grads = [ops.scaled_kl_grad(*pair).dlogits for pair in ((adv, clean), (adv.contiguous(), clean.contiguous()))]
    assert torch.equal(*grads)
