"""Models that overwrite their input: later readers still get the original images."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fastadv import PixelSpace, attacks
from fastadv.evaluate import evaluate
from fastadv.evaluate.label_leaking import leaking
from fastadv.evaluate.transfer import transfer
from fastadv.train import AdversarialTask, FreeTask
from fastadv.train.validation import accuracy
from tests.attacks.models import CLASSES, ConvNet, batch

UNIT = PixelSpace.unit()
IMAGES, LABELS = batch(12)


def clamp(x: Tensor) -> Tensor:
    with torch.no_grad():
        return x.clamp_(0.3, 0.6)


def normalise(x: Tensor) -> Tensor:
    return x.sub_(0.5).mul_(3.0)


def normalise_past_autograd(x: Tensor) -> Tensor:
    x.data.sub_(0.5).mul_(3.0)
    return x


def relu(x: Tensor) -> Tensor:
    return nn.functional.relu(x.sub_(0.5), inplace=True)


def through_numpy(x: Tensor) -> Tensor:
    x.detach().numpy()[...] *= 0.5
    return x


WRITES: list[Callable[[Tensor], Tensor]] = [clamp, normalise, normalise_past_autograd, relu, through_numpy]
each_way = pytest.mark.parametrize("write", WRITES)


class Writes(nn.Module):
    """Overwrites its input, or a copy of it, before it does anything else."""

    def __init__(self, write: Callable[[Tensor], Tensor], copies: bool = False) -> None:
        super().__init__()
        self.net, self.write, self.copies = ConvNet().eval(), write, copies

    def forward(self, x: Tensor) -> Tensor:  # [N, 3, 8, 8] -> [N, CLASSES]
        return self.net(self.write(x.clone() if self.copies else x))


def made(attack: Any, call: str, images: Tensor) -> Tensor:
    if call == "at_each":
        return torch.stack(list(attack.at_each(images, LABELS, eps=[2, 4])))
    return getattr(attack, call)(images, LABELS)


@each_way
@pytest.mark.parametrize("call", ["__call__", "perturb_", "at_each"])
@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("name", ["fgsm", "iter_ll"])
def test_an_attack(name: str, fast: bool, call: str, write: Callable[[Tensor], Tensor]) -> None:
    """Gives the same images as with a model that copies its input, in every iteration."""
    results = []
    for copies in (False, True):
        images = IMAGES.clone()
        attack = attacks.create(name, Writes(write, copies), eps=4, seed=1, fast=fast)
        results.append(made(attack, call, images))
        assert call == "perturb_" or torch.equal(images, IMAGES)
    assert torch.equal(*results)
    assert 0 < (results[0] - IMAGES).abs().max() <= 4.001 / 255


@each_way
def test_images_are_left_as_they_were_by_a_model_that_raises(write: Callable[[Tensor], Tensor]) -> None:
    class Raises(Writes):
        def forward(self, x: Tensor) -> Tensor:
            super().forward(x)
            raise ArithmeticError

    images = IMAGES.clone()
    with pytest.raises(ArithmeticError):
        attacks.create("fgsm", Raises(write), eps=4).perturb_(images, LABELS)
    assert torch.equal(images, IMAGES)


@each_way
def test_an_evaluation(write: Callable[[Tensor], Tensor]) -> None:
    """Leaves the caller's batches intact for the next network."""
    batches = [(IMAGES.clone(), LABELS)]
    for _ in range(2):
        assert evaluate(Writes(write), batches, space=UNIT) == evaluate(Writes(write, True), batches, space=UNIT)
    assert accuracy(Writes(write), batches) == accuracy(Writes(write, True), batches)
    leaking(Writes(write), batches, eps=[4], space=UNIT)
    assert torch.equal(batches[0][0], IMAGES)


@each_way
def test_transfer_in_any_order_of_targets(write: Callable[[Tensor], Tensor]) -> None:
    source, other = ConvNet(), ConvNet(seed=1).eval()
    targets = [(Writes(write), UNIT), (other, UNIT), (source, UNIT)]
    tables = [
        transfer(source, order, [(IMAGES.clone(), LABELS)], attack="fgsm", eps=[8, 16], space=UNIT)
        for order in (targets, targets[::-1])
    ]
    assert tables[0] == [row[::-1] for row in tables[1]]


@each_way
def test_a_training_step(write: Callable[[Tensor], Tensor]) -> None:
    """Has the loss of the model that copies its input; past the first step the clean examples stay what they were.

    What is written past autograd changes the caller's minibatch, as in any training loop, and nothing else.
    """
    seen = write not in (normalise_past_autograd, through_numpy)
    models = [Writes(write, copies) for copies in (False, True)]
    tasks = [AdversarialTask(model, attack="fgsm", k=3, eps=4, space=UNIT) for model in models]
    for step in range(3):
        losses = []
        for task in tasks:
            images = IMAGES.clone()
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                losses.append(task(images, LABELS))
            first = task is tasks[0] and step == 0 and seen
            assert ["the model overwrites its input" in str(warning.message) for warning in caught] == [True] * first
            assert torch.equal(images[3:], IMAGES[3:]) or (task is tasks[0] and (first or not seen))
        assert torch.equal(*losses)


@each_way
def test_a_step_of_free_training(write: Callable[[Tensor], Tensor]) -> None:
    """The images need a gradient there: without one being noticed they can be overwritten, or else that is said."""
    images = IMAGES.clone()
    losses = []
    for copies in (False, True):
        task = FreeTask(Writes(write, copies), eps=4, space=UNIT)
        if write in (normalise, relu) and not copies:
            with pytest.raises(ValueError, match=r"it overwrites them, .* begin its forward with x = x.clone\(\)"):
                task(images, LABELS)
            return
        for _ in range(2):
            losses.append(task(images, LABELS))
            losses[-1].backward()
    assert torch.equal(losses[0], losses[2]) and torch.equal(losses[1], losses[3])
    assert torch.equal(images, IMAGES)


def test_what_the_gradient_needs_is_overwritten() -> None:
    def model(x: Tensor) -> Tensor:
        y = x.flatten(1)[:, :CLASSES].exp()
        z = 2 * y
        y.mul_(2)  # which the backward pass of exp reads
        return z

    with pytest.raises(ValueError, match="fgsm: there is no gradient to the images: the model overwrites a tensor"):
        attacks.create("fgsm", model, eps=4)(IMAGES, LABELS)
