"""The option eot: gradients averaged over passes of a network that draws, and networks that draw unnoticed."""

from __future__ import annotations

import random
import warnings
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from fastadv import PixelSpace, attacks
from fastadv.train import AdversarialTask, PairedTask, TradesTask
from tests.attacks.models import ConvNet, batch

UNIT = PixelSpace.unit()
SAMPLES = 5


class Noisy(nn.Module):
    """Noise on the input, and logits of a random scale: what a network that randomises its input does."""

    def __init__(self) -> None:
        super().__init__()
        self.net = ConvNet()

    def forward(self, images: Tensor) -> Tensor:  # [N, 3, 8, 8] -> [N, CLASSES]
        noise = torch.randn(images.shape, dtype=torch.float64).to(images.dtype)
        return self.net(images + 0.1 * noise) * 10 ** torch.randn(len(images), 1, dtype=torch.float64).to(images.dtype)


def mean_gradient(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    total = torch.zeros_like(images)
    for _ in range(SAMPLES):
        x = images.clone().requires_grad_()
        total += torch.autograd.grad(functional.cross_entropy(model(x), labels, reduction="sum"), x)[0] / SAMPLES
    return total


def test_a_step_along_the_mean_in_plain_pytorch() -> None:
    """Along the gradient itself: each pass has its own length."""
    images, labels = batch(dtype=torch.float64)
    model = Noisy().double().eval()
    attack = attacks.FastGradL2(model, eps=50, eot=SAMPLES)
    torch.manual_seed(0)
    adv = attack(images, labels)
    torch.manual_seed(0)
    grad = mean_gradient(model, images, labels)
    expected = (images + 50 / 255 * grad / grad.flatten(1).norm(dim=1).view(-1, 1, 1, 1)).clamp(0, 1)
    torch.testing.assert_close(adv, expected, rtol=0, atol=1e-12)
    assert attack.image_gradients == SAMPLES * 6 and attack.gradients(8) == SAMPLES


def test_several_steps_in_plain_pytorch() -> None:
    images, labels = batch(dtype=torch.float64)
    model = Noisy().double().eval()
    attack = attacks.IterBasic(model, eps=8, alpha=2, steps=3, eot=SAMPLES)
    torch.manual_seed(0)
    made = attack(images, labels)
    torch.manual_seed(0)
    adv = images
    for _ in range(3):
        adv = adv + 2 / 255 * mean_gradient(model, adv, labels).sign()
        adv = adv.clamp(images - 8 / 255, images + 8 / 255).clamp(0, 1)
    torch.testing.assert_close(made, adv, rtol=0, atol=1e-12)
    assert attack.image_gradients == attack.gradients(8) * 6 == attack.expected_gradients(6, 8.0) * 6 == 3 * SAMPLES * 6


def test_a_class_that_the_first_pass_chooses() -> None:
    images, _ = batch(dtype=torch.float64)
    model = Noisy().double().eval()
    torch.manual_seed(0)
    adv = attacks.StepLL(model, eps=8, eot=SAMPLES)(images)
    torch.manual_seed(0)
    with torch.no_grad():
        target = model(images).argmin(1)
    torch.manual_seed(0)
    grad = mean_gradient(model, images, target)
    torch.testing.assert_close(adv, (images - 8 / 255 * grad.sign()).clamp(0, 1), rtol=0, atol=1e-12)


def test_restarts_and_sizes() -> None:
    images, labels = batch(dtype=torch.float64)
    model = Noisy().double().eval()
    attack = attacks.PGD(model, eps=8, steps=2, restarts=3, eot=2, seed=0)
    attack(images, labels)
    assert attack.image_gradients % 4 == 0 and 4 * 6 <= attack.image_gradients <= attack.gradients(8) * 6 == 12 * 6
    fgsm = attacks.FGSM(model, eps=8, eot=SAMPLES)
    torch.manual_seed(0)
    sizes = list(fgsm.at_each(images, labels, eps=[2, 8]))
    torch.manual_seed(0)
    assert torch.equal(sizes[1], fgsm(images, labels))


@pytest.mark.parametrize("option", [{}, {"capture": True}, {"fold_bn": True}, {"fast": True}], ids=str)
def test_a_model_that_does_not_draw_is_noticed(used: Counter[str], option: dict[str, Any]) -> None:
    model = ConvNet().double()
    averaged, once = (attacks.PGD(model, eps=8, steps=2, seed=0, eot=eot, **option) for eot in (4, 1))
    for number in range(3):
        images, labels = batch(dtype=torch.float64, seed=number)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            assert torch.equal(averaged(images, labels), once(images, labels))
        messages = [str(warning.message) for warning in caught]
        assert messages == [
            "pgd: eot=4 averages the same gradient 4 times: the model gave the same logits in two passes"
        ] * (number == 0)


# --- networks that draw, and nobody has said so -----------------------------------------------------------------------


class Draws(nn.Module):
    """Shifts its input by a random number of pixels."""

    def __init__(self, draw: Any) -> None:
        super().__init__()
        self.net, self.draw = ConvNet(), draw

    def forward(self, images: Tensor) -> Tensor:
        return self.net(images.roll(int(self.draw()), dims=-1))


@pytest.mark.parametrize(
    "draw",
    [lambda: torch.randint(8, ()), lambda: random.randrange(1, 10**6) % 8, lambda: np.random.randint(8)],
    ids=["torch", "python", "numpy"],
)
def test_a_network_that_gives_two_answers_is_told_of_eot(draw: Any) -> None:
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)
    images, labels = batch()
    with pytest.warns(UserWarning, match=r"fgsm: the model draws random numbers in .* average over it, as by eot=10"):
        attacks.FGSM(Draws(draw), eps=8)(images, labels)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # which it was asked for
        attacks.FGSM(Draws(draw), eps=8, eot=4)(images, labels)


# --- training, and refusals -------------------------------------------------------------------------------------------


def test_training_counts_its_passes() -> None:
    images, labels = batch(8)
    task = AdversarialTask(Noisy().eval(), attack="fgsm", k=4, eps=8, space=UNIT, attack_options={"eot": 3})
    expected = task.expected_passes(8, 0)
    task(images, labels)
    assert task.take_passes() == expected and expected.to_images == 12


def test_trades_counts_its_passes() -> None:
    """Also those of the clean prediction, which is a mean as well."""
    images, labels = batch(4)
    model, rows = Noisy().eval(), []
    model.register_forward_hook(lambda _, given, __: rows.append(len(given[0])))
    task = TradesTask(model, eps=8, space=UNIT, steps=2, attack_options={"eot": 3})
    expected = task.expected_passes(4, 0)
    task(images, labels)
    assert task.take_passes() == expected and expected.forward == sum(rows) == 4 * (3 + 2 * 3 + 2)


def test_paired_training_has_one_pass() -> None:
    with pytest.raises(ValueError, match="attack_options must not set eot: the gradient comes from the training pass"):
        PairedTask(ConvNet(), attack="fgsm", eps=8, space=UNIT, attack_options={"eot": 3})


def test_refusals() -> None:
    with pytest.raises(ValueError, match=r"^eot must be at least 1, got 0"):
        attacks.FGSM(ConvNet(), eot=0)
    with pytest.raises(TypeError, match=r"^eot must be an integer, got 1.5"):
        attacks.FGSM(ConvNet(), eot=1.5)
    assert "eot=3" in repr(attacks.FGSM(ConvNet(), eot=3))
