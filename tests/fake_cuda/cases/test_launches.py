"""What an attack and an iteration of training launch on a GPU and wait for: numbers that must not grow."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from benchmarks.trainers import CLASSES, random_trainer
from fastadv import PixelSpace, attacks, models
from fastadv.train import (
    AttackConfig,
    ModelConfig,
    OptimizerConfig,
    ScheduleConfig,
    TrainConfig,
    create_trainer,
    outcomes,
)
from tests.attacks.gradients import GRADIENTS
from tests.attacks.models import ConvNet
from tests.fake_cuda.runtime import Counts, Runtime
from tests.train.conftest import few_digits  # noqa: F401  a fixture

NETWORKS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "ConvNet": (ConvNet, 8),
    "small_cnn": (lambda: models.create("small_cnn", num_classes=10), 16),
    "resnet18": (lambda: models.create("torchvision/resnet18", num_classes=10), 32),
}
# Of a call in which nothing is new: three launches for the look at the images' range; a copy of the images to return,
# one into the graphs and one out of them, for several steps the clean images, labels if they are used, and each graph;
# pgd draws from another place in its stream each time.
CAPTURED = {"fgsm": 8, "step_ll": 7, "iter_ll": 12, "pgd": 19, "mi_fgsm": 18}
# The range of the batch before, whose ends have long arrived.
RANGE = {"Event.synchronize": 1}


def counted(gpu: Runtime, network: str, name: str, **options: Any) -> Counts:
    """What the third call runs: the first is looked at, and the second recorded."""
    create, size = NETWORKS[network]
    model = create().eval().to("cuda")
    images, labels = torch.rand(4, 3, size, size).to("cuda"), torch.arange(4).to("cuda")
    attack = attacks.create(name, model, eps=4, space=PixelSpace.unit(), seed=1, **options)
    for _ in range(3):
        counts = gpu.counts = Counts()
        attack(images, labels)
    gpu.counts = Counts()  # of what comes when the attack is given up
    return counts


@pytest.mark.parametrize("option", ["capture", "fast"])
@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("name", CAPTURED)
def test_a_captured_call(gpu: Runtime, network: str, name: str, option: str) -> None:
    """fast=True launches not one kernel more: the folded weights follow the model's within the first graph."""
    counts = counted(gpu, network, name, **{option: True})
    assert counts.launched == CAPTURED[name]
    assert (+counts.waits, +counts.blocking_copies) == (RANGE, {})


@pytest.mark.parametrize(
    ("network", "names"), [("ConvNet", CAPTURED), ("small_cnn", CAPTURED), ("resnet18", ["step_ll", "iter_ll"])]
)
def test_fast_launches_no_more_than_no_option(gpu: Runtime, network: str, names: Iterable[str]) -> None:
    """Of the largest network one step and several: what depends on the attack shows on the others."""
    for name in names:
        plain, fast = (counted(gpu, network, name, **options).launched for options in ({}, {"fast": True}))
        assert fast < plain


@pytest.mark.parametrize("options", [{}, {"fast": True}], ids=["as it is", "fast"])
@pytest.mark.parametrize("name", GRADIENTS)
def test_a_call_waits_for_nothing(gpu: Runtime, name: str, options: dict[str, Any]) -> None:
    counts = counted(gpu, "ConvNet", name, **options)
    assert (+counts.waits, +counts.blocking_copies) == (RANGE, {})


# Of an iteration: launches by option, of a network of five layers.
ITERATIONS: dict[str, tuple[dict[str, Any], int]] = {
    "clean": ({"attack": AttackConfig(k=0)}, 92),
    "plain": ({}, 134),
    "bfloat16": ({"precision": "bfloat16"}, 152),
    "clipped": ({"clip_grad_norm": 1.0}, 142),
    "averaged": ({"ema_decay": 0.9}, 140),
    "rmsprop_tf": ({"optimizer": OptimizerConfig(name="rmsprop_tf", lr=0.01)}, 136),
}
CONFIG = TrainConfig(
    model=ModelConfig(options={"width": 0.25}), attack=AttackConfig(k=12), m=32, epochs=1, seed=1, log_every=1
)


@pytest.mark.usefixtures("few_digits")
@pytest.mark.parametrize(("options", "most"), ITERATIONS.values(), ids=ITERATIONS)
def test_an_iteration_of_training(gpu: Runtime, tmp_path: Path, options: dict[str, Any], most: int) -> None:
    """One that is logged waits once, for the sums of what is logged, which are made before the backward pass."""
    trainer = create_trainer(replace(CONFIG, **options), tmp_path / "run")
    minibatches = trainer.train_loader.epoch(0)
    for _ in range(3):
        gpu.counts = Counts()
        trainer.train_step([next(minibatches)])
    assert +gpu.counts.waits == {"Event.synchronize": 1}
    assert +gpu.counts.blocking_copies == {}
    assert gpu.counts.launched <= most, gpu.counts.launches.most_common()


WAITING: dict[str, dict[str, Any]] = {
    "plain": {},
    "fast": {"fast": True},
    "bfloat16": {"precision": "bfloat16"},
    "accumulate": {"accumulate": 2},
    "clipped": {"clip_grad_norm": 1.0},
    "averaged": {"ema_decay": 0.9},
    "paired": {"attack": AttackConfig(training="paired", name="fgsm", eps=8.0)},
    "captured": {"capture": True},
    "captured, averaged": {"capture": True, "ema_decay": 0.9},
}


@pytest.mark.usefixtures("few_digits")
@pytest.mark.parametrize("options", WAITING.values(), ids=WAITING)
def test_iterations_wait_when_they_are_logged(
    gpu: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    """Where ten take less than a second, and from the eleventh on: the first ones are read more often."""
    monkeypatch.setattr(outcomes, "_SECONDS", 1e9)
    trainer = create_trainer(replace(CONFIG, log_every=5, **options), tmp_path / "run")
    minibatches = itertools.chain.from_iterable(map(trainer.train_loader.epoch, itertools.count()))
    for number in range(20):
        if number == 10:
            gpu.counts = Counts()
        trainer.train_step(itertools.islice(minibatches, trainer.config.accumulate))
    assert +gpu.counts.waits == {"Event.synchronize": 2}


# Of an iteration that is replayed, of any network: its three parts, the minibatch's images and labels, the place in the
# stream of random numbers, the sums on their way to the host, two copies of buffers to undo it by, and three of the
# loader; where they change, the rates of two groups or a decay.
REPLAYED: dict[str, tuple[dict[str, Any], int]] = {
    "clean": ({"attack": AttackConfig(k=0)}, 11),
    "plain": ({}, 12),
    "bfloat16": ({"precision": "bfloat16"}, 12),
    "clipped": ({"clip_grad_norm": 1.0}, 12),
    "averaged": ({"ema_decay": 0.9}, 13),
    "a schedule": ({"schedule": ScheduleConfig(name="cosine")}, 14),
    "rmsprop_tf": ({"optimizer": OptimizerConfig(name="rmsprop_tf", lr=0.01)}, 12),
    "fast": ({"fast": True}, 12),
}


@pytest.mark.usefixtures("few_digits")
@pytest.mark.parametrize(("options", "most"), REPLAYED.values(), ids=REPLAYED)
def test_a_captured_iteration(gpu: Runtime, tmp_path: Path, options: dict[str, Any], most: int) -> None:
    """The first runs as it is, the second is watched, the third recorded. It waits as one that is not recorded does."""
    trainer = create_trainer(replace(CONFIG, capture=True, **options), tmp_path / "run")
    minibatches = trainer.train_loader.epoch(0)
    for _ in range(4):
        gpu.counts = Counts()
        trainer.train_step([next(minibatches)])
    assert gpu.counts.launches["graph"] == 3
    assert +gpu.counts.waits == {"Event.synchronize": 1}
    assert +gpu.counts.blocking_copies == {}
    assert gpu.counts.launched == most, gpu.counts.launches.most_common()


@pytest.mark.parametrize(("name", "size"), [("small_cnn", 16), ("torchvision/resnet50", 32)])
def test_a_captured_iteration_of_any_network(gpu: Runtime, name: str, size: int) -> None:
    config = TrainConfig(m=4, attack=AttackConfig(k=2), capture=True)
    model = models.create(name, num_classes=CLASSES)
    trainer, _ = random_trainer(model, config, size=size, device=torch.device("cuda", 0))
    for _ in range(4):
        minibatch = next(trainer.train_loader.epoch(0))
        gpu.counts = Counts()
        trainer.train_step([minibatch])
    assert gpu.counts.launched == 9, gpu.counts.launches.most_common()
