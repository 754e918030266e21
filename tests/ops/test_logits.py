"""target_grad and mixed_cross_entropy: by hand, against autograd and the reference, saturated and huge rows."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from fastadv import ops, reference
from tests.ops.cases import DTYPES

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("rule", "target", "wanted"),
    [
        ("label", 1, [0.0, 1.0, 0.0]),
        ("predicted", 0, [1.0, 0.0, 0.0]),
        ("least_likely", 2, [0.0, 0.0, 1.0]),
    ],
)
def test_cross_entropy_by_hand(rule: str, target: int, wanted: list[float]) -> None:
    logits = torch.log(torch.tensor([[0.5, 0.3, 0.2]]))
    result = ops.target_grad(logits, rule, torch.tensor([1]))
    assert result.target.tolist() == [target]
    torch.testing.assert_close(result.dlogits, torch.tensor([[0.5, 0.3, 0.2]]) - torch.tensor([wanted]))


def test_label_smoothing_by_hand() -> None:
    logits = torch.log(torch.tensor([[0.5, 0.3, 0.2]]))
    result = ops.target_grad(logits, "label", torch.tensor([1]), label_smoothing=0.3)
    torch.testing.assert_close(result.dlogits, torch.tensor([[0.5 - 0.1, 0.3 - 0.8, 0.2 - 0.1]]))


def test_entropy_by_hand() -> None:
    p = torch.tensor([[0.5, 0.25, 0.25]])
    entropy = 1.5 * math.log(2)
    result = ops.target_grad(torch.log(p), "entropy")
    expected = -p * (torch.log(p) + entropy)
    torch.testing.assert_close(result.dlogits, expected)
    assert result.target.tolist() == [0]


@pytest.mark.parametrize("rule", reference.RULES)
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_gradient_is_the_derivative_of_the_summed_cost(rule: str, smoothing: float) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(16, 7, dtype=torch.float64, generator=generator, requires_grad=True)
    labels = torch.randint(0, 7, (16,), generator=generator)
    result = ops.target_grad(logits, rule, labels, smoothing, seed=3)
    if rule == "entropy":
        cost = torch.distributions.Categorical(logits=logits).entropy().sum()
    else:
        cost = functional.cross_entropy(logits, result.target, reduction="sum", label_smoothing=smoothing)
    (expected,) = torch.autograd.grad(cost, logits)
    torch.testing.assert_close(result.dlogits, expected)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(0, 5), (1, 1), (1, 2), (33, 10), (3, 129), (5, 1000), (2, 21841)], ids=str)
@pytest.mark.parametrize("rule", reference.RULES)
def test_against_the_reference(rule: str, shape: tuple[int, int], dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(1)
    logits = (4 * torch.randn(shape, generator=generator)).to(dtype)
    labels = torch.randint(0, shape[1], shape[:1], generator=generator)
    result = ops.target_grad(logits, rule, labels, 0.1, seed=5, offset=2)
    expected = reference.target_grad(logits, rule, labels, 0.1, seed=5, offset=2)
    assert torch.equal(result.target, expected.target)
    torch.testing.assert_close(result.dlogits, expected.dlogits)
    assert_same_direction(*(m.scaled_target_grad(logits, rule, labels, 0.1, 5, 2) for m in (ops, reference)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("margin", [20.0, 40.0, 80.0])
def test_a_confident_network_does_not_hide_its_gradient(margin: float, dtype: torch.dtype) -> None:
    """p - 1 rounds to zero from a margin of 17 on in float32; the sum of the other probabilities does not."""
    logits = torch.tensor([[margin, 0.0, 0.0]], dtype=dtype)
    for module in (ops, reference):
        grad = module.target_grad(logits, "label", torch.tensor([0])).dlogits.double()
        assert grad[0, 0].item() == pytest.approx(-2 * math.exp(-margin), rel=1e-2)
        assert (grad[0, 1:] > 0).all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("margin", [1.0, 18.0, 60.0, 150.0, 60_000.0])
def test_a_scaled_gradient_keeps_its_direction(margin: float, dtype: torch.dtype) -> None:
    """Below a margin of 17 float16 has the derivative itself, below 103 float32, below 745 float64."""
    logits = torch.tensor([[margin, 0.0, -1.0]], dtype=dtype)
    margin, e = logits[0, 0].item(), math.exp(-1)
    log_size = math.log(1 + e) - margin - math.log1p((1 + e) * math.exp(-margin))  # of 1 - p
    for module in (ops, reference):
        _, grad, exponent = module.scaled_target_grad(logits, "predicted")
        assert 0.5 <= -grad[0, 0] < 1
        torch.testing.assert_close(grad / -grad[0, 0], torch.tensor([[-1.0, 1 / (1 + e), e / (1 + e)]], dtype=dtype))
        assert math.log2(-grad[0, 0]) + exponent.item() == pytest.approx(log_size / math.log(2), abs=1e-2)
        _, grad, _ = module.scaled_target_grad(logits, "entropy")
        assert grad.sum().abs() < torch.finfo(dtype).eps
        if margin > 10:  # -p log p of the others, whose log p is minus the margin
            ratio = torch.tensor(e * (margin + 1) / margin, dtype=dtype)
            torch.testing.assert_close(grad[0, 2] / grad[0, 1], ratio, rtol=2 * torch.finfo(dtype).eps + 1e-6, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("rule", reference.RULES)
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_a_scaled_gradient_is_the_gradient_times_a_power_of_two(rule, smoothing, dtype) -> None:
    """Bit for bit: steps of attacks are unchanged where nothing underflows."""
    generator = torch.Generator().manual_seed(6)
    logits = torch.randn(40, 7, generator=generator, dtype=dtype) * torch.linspace(0.01, 8, 40)[:, None]
    labels = logits.argmax(1) * torch.randint(0, 2, (40,), generator=generator)  # some right, some wrong
    target, grad, exponent = ops.scaled_target_grad(logits, rule, labels, smoothing, seed=1)
    plain = ops.target_grad(logits, rule, labels, smoothing, seed=1)
    assert torch.equal(target, plain.target)
    assert torch.equal(grad * torch.exp2(exponent.to(dtype))[:, None], plain.dlogits)
    largest = grad.abs().amax(1)
    assert ((largest >= 0.5) & (largest < 1)).all()


@pytest.mark.parametrize("rule", ["label", "entropy"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    ("row", "exponent"),
    [
        ([3.0, -INF, -INF], -(2**30)),  # no other class: the derivative is zero
        ([NAN, 0.0, 1.0], 0),
        ([INF, 0.0, 1.0], 0),
        ([-INF, -INF, -INF], 0),
    ],
    ids=str,
)
def test_rows_that_have_no_direction(row: list[float], exponent: int, dtype: torch.dtype, rule: str) -> None:
    logits = torch.tensor([row, [150.0, 0.0, -INF]], dtype=dtype)
    for module in (ops, reference):
        plain = module.target_grad(logits, rule, torch.tensor([0, 0])).dlogits
        _, scaled, exponents = module.scaled_target_grad(logits, rule, torch.tensor([0, 0]))
        assert exponents[0] == exponent
        torch.testing.assert_close(scaled[0], plain[0], equal_nan=True, rtol=0, atol=0)
        assert (scaled[0].isnan() if exponent == 0 else scaled[0] == 0).all()
        assert scaled[1, 0] < -0.4 and scaled[1, 1] > 0.4 and scaled[1, 2] == 0


def assert_same_direction(result: reference.ScaledTargetGrad, expected: reference.ScaledTargetGrad) -> None:
    """Scaled derivatives that agree up to rounding; the exponents of the nearly same number may differ by 1."""
    assert torch.equal(result.target, expected.target)
    power = torch.exp2((result.exponent - expected.exponent).double())[:, None]
    torch.testing.assert_close((result.dlogits * power).to(expected.dlogits.dtype), expected.dlogits)


def test_ties_take_the_first_class() -> None:
    logits = torch.tensor([[1.0, 2.0, 2.0, 0.0, 0.0]])
    assert ops.target_grad(logits, "predicted").target.item() == 1
    assert ops.target_grad(logits, "least_likely").target.item() == 3


def test_random_class_is_uniform_over_all_but_the_predicted() -> None:
    logits = torch.zeros(50_000, 5)
    logits[:, 2] = 1.0
    counts = ops.target_grad(logits, "random", seed=1).target.bincount(minlength=5)
    assert counts[2] == 0
    assert (counts[[0, 1, 3, 4]] - 12_500).abs().max() < 5 * math.sqrt(12_500 * 0.75)


@pytest.mark.parametrize("k", [0, 1, 3, 4])
@pytest.mark.parametrize("lambda_", [0.3, 1.0, 2.0])
def test_mixed_loss_is_the_papers(k: int, lambda_: float) -> None:
    generator = torch.Generator().manual_seed(2)
    logits, labels = torch.randn(4, 5, generator=generator), torch.tensor([0, 1, 2, 4])
    losses = functional.cross_entropy(logits, labels, reduction="none")
    expected = (losses[k:].sum() + lambda_ * losses[:k].sum()) / ((4 - k) + lambda_ * k)
    torch.testing.assert_close(ops.mixed_cross_entropy(logits, labels, k, lambda_), expected)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(1, 1), (2, 10), (33, 129), (8, 1000)], ids=str)
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_mixed_loss_and_gradient_against_the_reference(smoothing, shape, dtype) -> None:
    generator = torch.Generator().manual_seed(3)
    values = (4 * torch.randn(shape, generator=generator)).to(dtype)
    labels = torch.randint(0, shape[1], shape[:1], generator=generator)
    results = []
    for module in (ops, reference):
        logits = values.clone().requires_grad_()
        loss = module.mixed_cross_entropy(logits, labels, shape[0] // 2, 0.3, smoothing)
        (3.0 * loss).backward()
        results.append((loss.detach(), logits.grad))
    torch.testing.assert_close(results[0][0], results[1][0])
    torch.testing.assert_close(results[0][1], results[1][1])


def test_mixed_loss_of_masked_classes() -> None:
    """Logits of -inf, as of classes that a network leaves out, change nothing."""
    values, kept = torch.tensor([[1.0, -INF, 0.5], [0.0, -INF, 2.0]]), torch.tensor([0, 2])
    results = []
    for logits, labels in ((values, torch.tensor([2, 0])), (values[:, kept], torch.tensor([1, 0]))):
        leaf = logits.clone().requires_grad_()
        loss = ops.mixed_cross_entropy(leaf, labels, 1)
        loss.backward()
        results.append((loss.detach(), leaf.grad if len(leaf.T) == 2 else leaf.grad[:, kept]))
    torch.testing.assert_close(*results)


def gradient_penalty(function) -> torch.Tensor:
    """A graph that would hide a wrong second derivative, because it reaches the weight on other paths too."""
    weight = torch.randn(6, 5, requires_grad=True)
    images = torch.randn(4, 6, requires_grad=True)
    (grad,) = torch.autograd.grad(function(images @ weight), images, create_graph=True)
    return grad.square().sum()


@pytest.mark.parametrize(
    "derivative",
    [
        gradient_penalty,
        lambda function: torch.func.jvp(function, (torch.randn(4, 5),), (torch.randn(4, 5),)),
        lambda function: torch.func.hessian(function)(torch.randn(4, 5)),
        lambda function: torch.autograd.functional.hvp(function, torch.randn(4, 5), torch.randn(4, 5)),
    ],
    ids=["gradient penalty", "forward mode", "hessian", "hvp"],
)
def test_mixed_loss_has_one_derivative_and_says_so(derivative) -> None:
    """Without the error these would run and miss a term."""
    with pytest.raises(RuntimeError, match=r"forward-mode derivative|differentiable once|functorch transforms"):
        derivative(lambda logits: ops.mixed_cross_entropy(logits, torch.arange(4), 2))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_a_scaled_loss_does_not_leave_half_precision(dtype: torch.dtype) -> None:
    """With GradScaler's initial scale of 2^16, small derivatives do not round to zero, and none overflows."""
    generator = torch.Generator().manual_seed(4)
    logits = (2 * torch.randn(256, 10, generator=generator)).to(dtype)
    labels = logits.argmax(dim=1)
    logits[torch.arange(256), labels] += 12
    grads = []
    for module, wide in ((ops, False), (reference, True)):
        leaf = (logits.double() if wide else logits).detach().requires_grad_()
        (65536.0 * module.mixed_cross_entropy(leaf, labels, 128)).backward()
        grads.append(leaf.grad.double())
    assert grads[0].isfinite().all()
    torch.testing.assert_close(grads[0], grads[1], rtol=8 * torch.finfo(dtype).eps, atol=1e-6)


@pytest.mark.parametrize("rule", ["predicted", "least_likely"])
def test_nan_is_no_class(rule: str) -> None:
    logits = torch.tensor([[NAN, 1.0, 2.0, 2.0, 1.0], [3.0, NAN, 4.0, 3.0, 4.0], [NAN] * 5])
    expected = {"predicted": [2, 2, 0], "least_likely": [1, 0, 0]}[rule]
    for module in (ops, reference):
        assert module.target_grad(logits, rule).target.tolist() == expected
    assert ops.target_grad(logits, rule).dlogits.isnan().all()


def test_logits_in_any_layout() -> None:
    logits = torch.randn(7, 4).t()  # [4, 7], not contiguous
    assert torch.equal(
        ops.target_grad(logits, "least_likely").dlogits, ops.target_grad(logits.contiguous(), "least_likely").dlogits
    )
