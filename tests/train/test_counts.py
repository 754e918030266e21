"""Operators that an iteration of training runs in addition to the network's own passes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchmarks.operators import Operators
from benchmarks.trainers import CLASSES, random_trainer
from fastadv import models
from fastadv.train import AdversarialTask, AttackConfig, FreeTask, TrainConfig, Trainer, fast_task
from tests.attacks.models import ConvNet, batch
from tests.attacks.test_counts import CHOICE, STEP, UNIT, added_to, besides, passes

# The paper's loss is one operator, and its backward pass a product.
LOSS = {
    **{"fastadv::mixed_cross_entropy": 1, "mul": 1},
    **dict.fromkeys(("_log_softmax", "nll_loss_forward", "nll_loss_backward", "_log_softmax_backward_data"), -1),
}

FIRST = {"validate": "first"}  # like the trainer, whose loaders yield images within the space


def second_step(task: Any, model: torch.nn.Module, shown: Tensor, images: Tensor, labels: Tensor) -> Operators:
    """Count the operators of a second call and its backward pass on tensors like ``shown``; checks run in the first."""
    for _ in range(2):
        model.zero_grad()
        copy = images.clone()
        with Operators(shown) as counted:
            task(copy, labels).backward()
    return counted


def test_one_training_step() -> None:
    """Algorithm 1 costs the attack on k examples and one pass of the loss, and nothing else.

    The copy of the k examples is what the model is given for the attack, which it may write to.
    """
    model, (images, labels) = ConvNet().train(), batch(6)
    adversarial, plain = (
        second_step(
            AdversarialTask(model, attack="step_ll", k=k, eps=4, space=UNIT, seed=1, attack_options=FIRST),
            *(model, images[:3], images, labels),
        )
        for k in (3, 0)
    )
    own = passes(model.eval(), images[:3])
    found = besides(adversarial.names - plain.names, own.names, 1)
    found.pop("detach", None)
    found.pop("slice", None)
    assert found == {CHOICE: 1, STEP: 1, "clone": 1, "ones_like": -1}
    assert besides(adversarial.full_size, plain.full_size + own.full_size, 1) == {"clone": 1}


def test_one_clean_step() -> None:
    """With k = 0 an iteration is that of an ordinary loop, except for the loss."""
    model, (images, labels) = ConvNet().train(), batch(6)
    loops = second_step(lambda x, y: nn.functional.cross_entropy(model(x), y), model, images, images, labels)
    clean = second_step(AdversarialTask(model, k=0, space=UNIT), model, images, images, labels)
    found = besides(clean.names, loops.names, 1)
    found.pop("detach", None)
    assert found == {**LOSS, "zeros": 1}
    assert besides(clean.moving, loops.moving, 1) == besides(clean.full_size, loops.full_size, 1) == {}
    assert +clean.waits == {}


LAYERS = 5  # of small_cnn, with a convolution and a BatchNorm each
OF_AN_ATTACK = {"fastadv::sample_eps": 1, CHOICE: 1, STEP: 1}
# What is logged of an iteration, on numbers and on one per example: loss, hits, whether the loss is finite, their sums.
LOGGED = {
    **{"slice": 4, "zeros": 2, "sum": 2, "unsqueeze": 2, "eq": 2, "div": 2},
    **dict.fromkeys(("argmax", "stack", "_to_copy", "abs", "ne", "mul", "bitwise_not", "cat", "add_", "copy_"), 1),
}
# What an iteration is undone by: copies of each layer's statistics and of its counter.
KEPT = {"view": 3 * LAYERS, "cat": 2}


def small_trainer(k: int, fast: bool) -> tuple[Trainer, Tensor, Tensor]:
    """One of small_cnn, and a minibatch: images [6, 3, 8, 8], labels [6]."""
    model = models.create("small_cnn", num_classes=CLASSES, width=0.25)
    config = TrainConfig(m=6, attack=AttackConfig(k=k), fast=fast)
    trainer, _ = random_trainer(model, config, size=8, device=torch.device("cpu"))
    return trainer, *next(iter(trainer.train_loader.epoch(0)))


def second_iteration(step: Callable[[Tensor, Tensor], object], images: Tensor, labels: Tensor) -> Operators:
    for _ in range(2):
        copy = images.clone()
        with Operators(images) as counted:
            step(copy, labels)
    return counted


def test_a_clean_iteration_of_the_trainer_is_an_ordinary_one() -> None:
    trainer, images, labels = small_trainer(0, False)

    def by_hand(images: Tensor, labels: Tensor) -> None:
        trainer.optimizer.zero_grad()
        nn.functional.cross_entropy(trainer.model(images), labels).backward()
        trainer.optimizer.step()

    counted = second_iteration(lambda x, y: trainer.train_step([(x, y)]), images, labels)
    loops = second_iteration(by_hand, images, labels)
    found = besides(counted.names, loops.names, 1)
    found.pop("detach", None)
    assert found == added_to(added_to(LOSS, LOGGED), KEPT)
    assert besides(counted.moving, loops.moving, 1) == besides(counted.full_size, loops.full_size, 1) == {}


@pytest.mark.parametrize("fast", [False, True], ids=["as it is", "fast"])
@pytest.mark.parametrize("k", [0, 3])
def test_a_whole_iteration_of_the_trainer(k: int, fast: bool) -> None:
    """With an attack: two forward and backward passes, one for weights; one wait; no new tensor of the images' size.

    The wait is for the sums of what is logged, which are read while the backward pass is still to run on a GPU.
    """
    trainer, images, labels = small_trainer(k, fast)
    counted = second_iteration(lambda x, y: trainer.train_step([(x, y)]), images, labels)
    passes_of_the_network = 2 if k else 1
    assert counted.names["convolution"] == counted.names["convolution_backward"] == passes_of_the_network * LAYERS
    assert counted.weight_gradients == LAYERS
    assert counted.names["native_batch_norm"] == (1 if fast else passes_of_the_network) * LAYERS
    own = {name: n for name, n in counted.names.items() if name.startswith("fastadv::")}
    assert own == {"fastadv::mixed_cross_entropy": 1, **(OF_AN_ATTACK if k else {})}
    assert +counted.waits == {"tolist": 1}
    layout = {"clone": 1} if fast else {}  # of images that a loader did not yield in channels_last
    assert +counted.full_size == layout
    assert +counted.moving == {"convolution": 1, "convolution_backward": 1, **layout}


def test_one_step_of_fast_training() -> None:
    """One forward pass, one backward pass to the images alone; copies of clean images and of the model's input."""
    model, (images, labels) = ConvNet().train(), batch(6)
    plain = second_step(AdversarialTask(model, k=0, space=UNIT), model, images, images, labels)
    fast = second_step(fast_task(model, eps=4, space=UNIT, seed=1, attack_options=FIRST), model, images, images, labels)
    own = passes(model.eval(), images)
    found = besides(fast.names - plain.names, own.names, 1)
    found.pop("detach", None)
    found.pop("slice", None)
    assert found == {CHOICE: 1, STEP: 1, "fastadv::noise_step_": 1, "clone": 2, "ones_like": -1}
    assert besides(fast.full_size, plain.full_size + own.full_size, 1) == {"clone": 2}
    assert +fast.waits == {}


def test_one_step_of_free_training() -> None:
    """Not one pass more than training on clean images; the backward pass also gives the images' gradient.

    Of the images' size there are what is shown and that gradient; the perturbation is there from the first call on.
    """
    model, (images, labels) = ConvNet().train(), batch(6)
    plain = second_step(AdversarialTask(model, k=0, space=UNIT), model, images, images, labels)
    free = second_step(FreeTask(model, eps=4, space=UNIT, **FIRST), model, images, images, labels)
    found = besides(free.names, plain.names, 1)
    found.pop("detach", None)
    found.pop("slice", None)
    assert found == {"add": 1, "sub": 1, STEP: 2}
    assert besides(free.full_size, plain.full_size, 1) == {"add": 1, "convolution_backward": 1}
    assert +free.waits == {}
    assert model.features[0].weight.grad is not None
