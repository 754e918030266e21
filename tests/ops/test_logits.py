"""target_grad and mixed_cross_entropy: by hand, against autograd and the reference, saturated and huge rows."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from fastadv import ops, reference
from tests.ops.cases import DTYPES


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


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("margin", [20.0, 40.0, 80.0])
def test_a_confident_network_does_not_hide_its_gradient(margin: float, dtype: torch.dtype) -> None:
    """p - 1 rounds to zero from a margin of 17 on in float32; the sum of the other probabilities does not."""
    logits = torch.tensor([[margin, 0.0, 0.0]], dtype=dtype)
    grad = ops.target_grad(logits, "label", torch.tensor([0])).dlogits.double()
    assert grad[0, 0].item() == pytest.approx(-2 * math.exp(-margin), rel=1e-2)
    assert (grad[0, 1:] > 0).all()


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


def gradient_penalty(function) -> torch.Tensor:
    """A graph in which a wrong second derivative would hide: it reaches the weight by other ways, too."""
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
    """Without the refusal these would run, and miss a term."""
    with pytest.raises(RuntimeError, match=r"forward-mode derivative|differentiable once|functorch transforms"):
        derivative(lambda logits: ops.mixed_cross_entropy(logits, torch.arange(4), 2))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_a_scaled_loss_does_not_leave_half_precision(dtype: torch.dtype) -> None:
    """GradScaler's first scale is 2^16: derivatives that would round to zero unscaled are there, and none overflows."""
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


NAN = float("nan")


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
