"""The option loss: attacks on the margin and on the difference of logits ratio."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from fastadv import PixelSpace, attacks
from fastadv.train import PairedTask
from tests.attacks.models import ConvNet, PixelLogits, WithAux, batch

RAW = PixelSpace.raw()
ON_CLASSES = ("fgsm", "fgsm_pred", "step_ll", "step_rnd", "fast_grad_l2", "iter_basic", "iter_ll", "pgd", "mi_fgsm")


def test_values_by_hand() -> None:
    logits = torch.tensor([[5.0, 1.0, 3.0, 2.0], [5.0, 1.0, 3.0, 2.0], [4.0, 4.0, 0.0, 1.0]])  # [3, 4]
    target = torch.tensor([0, 3, 1])
    margin, dlr = (attacks.PGD(ConvNet(), loss=name).loss(logits, target) for name in ("margin", "dlr"))
    assert margin.tolist() == [-2.0, 3.0, 0.0]
    # Over 5 - 2, the first minus the third of all logits, whatever the target is.
    torch.testing.assert_close(dlr, torch.tensor([-2 / 3, 3 / 3, 0.0]))


# --- attacks ---------------------------------------------------------------------------------------------------------


def torch_margin(z: Tensor, y: Tensor) -> Tensor:
    true = functional.one_hot(y, z.shape[1]).bool()
    return z[~true].view(len(z), -1).max(1).values - z[true]


def torch_dlr(z: Tensor, y: Tensor) -> Tensor:
    sorted_ = z.sort(1).values
    return torch_margin(z, y) / (sorted_[:, -1] - sorted_[:, -3] + 1e-12)


@pytest.mark.parametrize(("name", "plain"), [("margin", torch_margin), ("dlr", torch_dlr)])
@pytest.mark.parametrize("targeted", [False, True])
def test_pgd_in_plain_pytorch(name: str, plain: Any, targeted: bool) -> None:
    images, labels = batch(dtype=torch.float64)
    model = ConvNet().double().eval()
    attack = attacks.PGD(model, eps=8, alpha=2, steps=5, random_start=False, loss=name, targeted=targeted)
    adv = images.clone()
    for _ in range(5):
        adv.requires_grad_()
        (grad,) = torch.autograd.grad(plain(model(adv), labels).sum(), adv)
        adv = adv.detach() + (-1 if targeted else 1) * 2 / 255 * grad.sign()
        adv = adv.clamp(images - 8 / 255, images + 8 / 255).clamp(0, 1)
    torch.testing.assert_close(attack(images, labels), adv, rtol=0, atol=1e-12)


def test_one_step_by_hand() -> None:
    """The margin has a derivative at two of the three logits, which are pixels; the cross-entropy at all."""
    images = torch.tensor([100.0, 90.0, 80.0]).view(1, 3, 1, 1)
    made = {
        loss: attacks.FGSM(PixelLogits(RAW), eps=8, space=RAW, loss=loss)(images, torch.tensor([0])).flatten().tolist()
        for loss in ("ce", "margin", "dlr")
    }
    assert made["ce"] == [92.0, 98.0, 88.0] and made["margin"] == [92.0, 98.0, 80.0]
    # -(z0 - z1) / (z0 - z2): its derivatives are -1/20 + 10/400, 1/20 and -10/400.
    assert made["dlr"] == [92.0, 98.0, 72.0]


@pytest.mark.parametrize("loss", ["margin", "dlr"])
@pytest.mark.parametrize("name", ON_CLASSES)
def test_every_attack_follows_its_loss(name: str, loss: str) -> None:
    images, labels = batch(dtype=torch.float64)
    model = ConvNet().double().eval()
    adv = attacks.create(name, model, eps=4, seed=0, loss=loss)(images, attacks.create(name, model).true_labels(labels))
    assert not torch.equal(adv, attacks.create(name, model, eps=4, seed=0)(images, labels))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_the_dlr_does_not_see_the_logits_scale(dtype: torch.dtype) -> None:
    """Of a network so confident that its cross-entropy has no derivative in PyTorch."""
    images, _ = batch(dtype=dtype)
    net = ConvNet().to(dtype).eval()
    labels = net(images).argmax(1)
    made = [
        attacks.FGSM(scaled, eps=8, loss="dlr")(images, labels)
        for scaled in (net, lambda x: 2**6 * net(x))  # a power of two, which rounds nothing
    ]
    assert torch.equal(*made)


@pytest.mark.parametrize("option", [{"capture": True}, {"compile": True}, {"fold_bn": True}], ids=str)
def test_with_the_options_for_speed(used: Counter[str], option: dict[str, bool]) -> None:
    model = ConvNet().double()
    fast, plain = (attacks.PGD(model, eps=4, steps=3, seed=1, loss="dlr", **extra) for extra in (option, {}))
    for seed in range(3):
        images, labels = batch(dtype=torch.float64, seed=seed)
        torch.testing.assert_close(fast(images, labels), plain(images, labels), rtol=0, atol=1e-9)
    assert used[next(iter(option))] > 0


def test_a_loss_that_changes_is_captured_again(used: Counter[str]) -> None:
    images, labels = batch(dtype=torch.float64)
    captured, eager = (attacks.PGD(ConvNet().double(), eps=4, steps=3, seed=1, capture=c) for c in (True, False))
    for loss in ("ce", "margin", "ce"):
        captured.loss_name = eager.loss_name = loss
        for _ in range(3):
            assert torch.equal(captured(images, labels), eager(images, labels))
    assert used["capture"] > 0


def test_auxiliary_logits_have_the_same_loss() -> None:
    images, labels = batch(dtype=torch.float64)
    model = WithAux().double().eval()
    attack = attacks.FGSM(model, eps=4, loss="margin", aux_weight=0.4)
    x = images.clone().requires_grad_()
    logits, aux = model.forward_with_aux(x)
    (grad,) = torch.autograd.grad((torch_margin(logits, labels) + 0.4 * torch_margin(aux, labels)).sum(), x)
    expected = (images + 4 / 255 * grad.sign()).clamp(0, 1)
    torch.testing.assert_close(attack(images, labels), expected, rtol=0, atol=1e-12)


def test_two_classes_have_no_third() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 2))
    images, labels = batch()
    with pytest.raises(
        ValueError, match=r"^pgd: loss='dlr' needs at least three classes, and the model has 2: use loss='margin'$"
    ):
        attacks.PGD(model, eps=4, loss="dlr")(images, labels % 2)
    attacks.PGD(model, eps=4, loss="margin")(images, labels % 2)


def test_paired_training_takes_a_gradient_of_its_own() -> None:
    images, labels = batch(8)
    model = ConvNet().eval()
    task = PairedTask(model, attack="fgsm", eps=8, space=PixelSpace.unit(), attack_options={"loss": "margin"})
    adv = images.clone()
    task.backward(adv, labels)
    assert torch.equal(adv, attacks.FGSM(model, eps=8, loss="margin")(images, labels))
    assert task.take_passes().to_images > 0


class OwnLoss(attacks.PGD):
    """The cross-entropy, by hand."""

    name = "own_loss"

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:  # [N, K], [N] -> [N]
        return functional.cross_entropy(logits, target, reduction="none")


@pytest.mark.parametrize(
    ("attack", "options", "message"),
    [
        ("pgd", {"loss": "cw"}, "^loss must be one of ce, dlr, margin, got 'cw'"),
        ("pgd", {"loss": "dlr", "label_smoothing": 0.1}, "^label_smoothing is of the cross-entropy: it must be 0 with"),
        (
            "fast_entropy",
            {"loss": "dlr"},
            "^fast_entropy is defined by its cost, so it takes no option loss, got 'dlr'",
        ),
        ("apgd_ce", {"loss": "margin"}, "^apgd_ce is defined by its cost, so it takes no option loss"),
        (OwnLoss, {"loss": "margin"}, "^own_loss has a loss of its own, so it takes no option loss, got 'margin'"),
    ],
)
def test_refusals(attack: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        attacks.create(attack, ConvNet(), **options)
    assert OwnLoss(ConvNet(), loss="ce")
