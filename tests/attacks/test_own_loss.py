"""Attacks with their own loss: differentiated by autograd, in all modes of a call."""

from __future__ import annotations

import math
import textwrap
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fastadv
from fastadv import PixelSpace, attacks
from fastadv.attacks.engine.loss_gradient import scaled_loss_grad
from tests.attacks.models import ConvNet, WithAux, batch
from tests.attacks.test_folding import set_up

UNIT = PixelSpace.unit()
RULES = [attacks.FGSM, attacks.FGSMPred, attacks.StepLL, attacks.StepRnd, attacks.FastEntropy]
KINDS = [*RULES, attacks.FastGradL2, attacks.IterBasic, attacks.IterLL, attacks.PGD, attacks.MIFGSM]


class Margin(attacks.IterBasic):
    """Increases the margin of the best other class over the true one (Carlini and Wagner, 2017)."""

    name = "margin"

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:  # [N, K], [N] -> [N]
        label = logits.gather(1, target[:, None])  # [N, 1]
        others = logits.scatter(1, target[:, None], -math.inf)  # [N, K]
        return (others.amax(dim=1, keepdim=True) - label)[:, 0]


def by_hand(model: nn.Module, images: Tensor, labels: Tensor, eps: float, alpha: float, steps: int) -> Tensor:
    """Margin in plain PyTorch, on images in [0, 1]."""
    adv = images.clone()
    for _ in range(steps):
        adv.requires_grad_()
        logits = model(adv)
        margins = []
        for row, label in zip(logits, labels.tolist(), strict=True):
            margins.append(max(value for index, value in enumerate(row) if index != label) - row[label])
        (grad,) = torch.autograd.grad(torch.stack(margins).sum(), adv)
        moved = adv.detach() + alpha / 255 * grad.sign()
        adv = moved.maximum(images - eps / 255).minimum(images + eps / 255).clamp(0, 1)
    return adv


# What is asked for, and what does its work on a CPU for it.
FORMS: dict[str, tuple[dict[str, bool], set[str]]] = {
    "eager": ({}, set()),
    "folded": ({"fold_bn": True}, {"fold_bn"}),
    "compiled": ({"compile": True}, {"compile"}),
    "captured": ({"capture": True}, {"capture"}),
    "folded and captured": ({"fold_bn": True, "capture": True}, {"fold_bn", "capture"}),
}
each_form = pytest.mark.parametrize(("options", "works"), FORMS.values(), ids=FORMS)


@each_form
def test_a_margin_is_what_it_is_in_plain_pytorch(used: Counter[str], options: dict[str, bool], works: set[str]) -> None:
    """Six steps of 1.5 in a ball of 4 pixel values, which would be left without clipping; three batches."""
    model = set_up(ConvNet()).double().eval()
    attack = Margin(model, eps=4, alpha=1.5, steps=6, **options)
    for seed in range(3):
        images, labels = batch(6, UNIT, torch.float64, seed=seed)
        expected = by_hand(model, images, labels, 4, 1.5, 6)
        assert ((attack(images, labels) - expected).abs() > 1e-9).sum() <= (2 if options else 0)
    assert set(+used) == works


def test_the_example_of_the_docstring() -> None:
    """The docstring's example runs as printed; without its random start it is what it is in plain PyTorch."""
    code = (attacks.GradientAttack.__doc__ or "").partition("::\n\n")[2].partition("\nArgs:")[0]
    images, labels = batch(6, dtype=torch.float64)
    model = ConvNet().double().eval()
    given: dict[str, Any] = {"fastadv": fastadv, "torch": torch, "model": model, "images": images, "labels": labels}
    exec(textwrap.dedent(code), given)
    assert given["adv"].shape == images.shape and ((given["adv"] - images).abs() <= 8 / 255 + 1e-6).all()
    plain, adv = given["BelowMean"](model, eps=4, steps=5, alpha=1, random_start=False), images.clone()
    for _ in range(5):
        logits = model(adv.requires_grad_())
        (grad,) = torch.autograd.grad((logits.sum(dim=1) / 5 - logits[range(6), labels]).sum(), adv)
        moved = adv.detach() + grad.sign() / 255
        adv = moved.maximum(images - 4 / 255).minimum(images + 4 / 255).clamp(0, 1)
    torch.testing.assert_close(plain(images, labels), adv, rtol=0, atol=1e-12)


@each_form
@pytest.mark.parametrize("kind", KINDS, ids=[kind.name for kind in KINDS])
def test_a_loss_that_is_the_packages_own(
    used: Counter[str], kind: type[attacks.Attack], options: dict[str, bool], works: set[str]
) -> None:
    """Differentiated by autograd, with the rule's target, it equals the closed form."""

    class Own(kind):  # type: ignore[misc, valid-type]
        def loss(self, logits: Tensor, target: Tensor) -> Tensor:  # [N, K], [N] -> [N]
            return super().loss(logits, target)  # type: ignore[no-any-return]

    model = set_up(ConvNet()).double().eval()
    own = Own(model, eps=4, seed=3, label_smoothing=0.1, **options)
    closed = kind(model, eps=4, seed=3, label_smoothing=0.1)
    for seed in range(3):
        images, labels = batch(6, UNIT, torch.float64, seed=seed)
        assert ((own(images, labels) - closed(images, labels)).abs() > 1e-9).sum() <= 2
    assert set(+used) == works


class OwnCrossEntropy(attacks.IterLL):
    def loss(self, logits: Tensor, target: Tensor) -> Tensor:  # [N, K], [N] -> [N]
        return nn.functional.cross_entropy(logits, target, reduction="none")


@pytest.mark.parametrize(
    ("make", "options"), [(WithAux, {"aux_weight": 0.4}), (ConvNet, {"bn": "batch"})], ids=["aux_weight", "bn=batch"]
)
def test_costs_that_are_added_up(make: Callable[[], nn.Module], options: dict[str, Any]) -> None:
    """Auxiliary logits, and examples that depend on each other, share one scale, as with the closed form."""
    model = set_up(make()).double().eval()
    images, _ = batch(6, UNIT, torch.float64)
    own, closed = (kind(model, eps=4, **options)(images) for kind in (OwnCrossEntropy, attacks.IterLL))
    assert ((own - closed).abs() > 1e-9).sum() <= 2


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_a_small_loss_is_no_small_gradient(dtype: torch.dtype) -> None:
    """Times 2^-60, which float16 cannot represent: the same images, bit for bit."""

    class Small(Margin):
        def loss(self, logits: Tensor, target: Tensor) -> Tensor:  # [N, K], [N] -> [N]
            return super().loss(logits, target) * 2**-60

    model = ConvNet().to(dtype).eval()
    images, labels = batch(6, UNIT, dtype)
    small, usual = (kind(model, eps=4)(images, labels) for kind in (Small, Margin))
    assert torch.equal(small, usual) and not torch.equal(small, images)


def test_the_scale_by_hand() -> None:
    """Derivatives 3 * 2^-40, one that is subnormal, none at all, and one that is not finite, for three classes each."""
    factors = torch.tensor([3 * 2.0**-40, 2.0**-140, 0.0, math.inf])
    rows = torch.tensor([1.0, -0.5, 0.25])

    def loss(logits: Tensor, target: Tensor) -> Tensor:  # [N, K] -> [N]
        return factors * (rows * logits).sum(dim=1)

    target, dlogits, exponent = scaled_loss_grad(loss, torch.ones(4, 3, dtype=torch.float16), torch.arange(4))
    assert target.tolist() == [0, 1, 2, 3] and dlogits.dtype == torch.float16
    assert dlogits[0].tolist() == [0.75, -0.375, 0.1875]
    assert dlogits[1].tolist() == [2.0**-15, -(2.0**-16), 2.0**-17]
    assert dlogits[2].tolist() == [0, 0, 0] and dlogits[3].tolist() == [math.inf, -math.inf, math.inf]
    assert exponent.tolist() == [-38, -125, -(2**30), 0] and exponent.dtype == torch.int32


LOSSES: dict[str, tuple[Callable[[Tensor, Tensor], Any], str]] = {
    "mean": (lambda logits, target: logits.sum(1).mean(), r"got a tensor \[\]; use reduction='none'"),
    "rows": (lambda logits, target: logits, r"got a tensor \[6, 5\]"),
    "detached": (
        lambda logits, target: logits.detach().sum(1),
        r"got a tensor \[6\] that does not depend on the logits",
    ),
    "nothing": (lambda logits, target: None, "got NoneType"),
}


@pytest.mark.parametrize(("loss", "said"), LOSSES.values(), ids=LOSSES)
def test_an_invalid_loss(loss: Callable[[Tensor, Tensor], Any], said: str) -> None:
    class Mine(attacks.FGSM):
        def loss(self, logits: Tensor, target: Tensor) -> Tensor:
            return loss(logits, target)  # type: ignore[no-any-return]

    images, labels = batch(6)
    with pytest.raises(
        ValueError, match=rf"Mine\.loss must return one differentiable number per example, \[6\], {said}$"
    ):
        Mine(ConvNet(), eps=4)(images, labels)


def test_labels_out_of_range_are_refused_before_the_loss_reads_them() -> None:
    images, labels = batch(6)
    with pytest.raises(ValueError, match="labels"):
        Margin(ConvNet(), eps=4)(images, labels + 5)
