"""A loss that is not finite and is read later: that iteration and those after it have not happened."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from fastadv.train import AttackConfig, NonFiniteLoss, OptimizerConfig, TrainConfig, Trainer, create_trainer, outcomes
from fastadv.train import checkpoint as checkpoints
from tests.fake_cuda.cases.test_iterations import CONFIG as CAPTURED
from tests.fake_cuda.runtime import Runtime
from tests.train.conftest import few_digits  # noqa: F401  a fixture
from tests.train.test_trainer import same

CONFIG = replace(CAPTURED, capture=False, log_every=3)
OPTIONS: dict[str, dict[str, Any]] = {
    "sgd": {},
    "rmsprop": {"optimizer": OptimizerConfig(name="rmsprop", lr=0.01)},
    "rmsprop_tf": {"optimizer": OptimizerConfig(name="rmsprop_tf", lr=0.01)},
    "adamw": {"optimizer": OptimizerConfig(name="adamw", lr=0.001, weight_decay=0.01)},
    "averaged": {"ema_decay": 0.9},
    "clipped": {"clip_grad_norm": 1.0},
    "accumulate": {"accumulate": 2},
    "paired": {"attack": AttackConfig(training="paired", name="fgsm", eps=8.0, start_after=4)},
    "captured": {"capture": True},
    "captured, rmsprop_tf, averaged": {
        **{"capture": True, "ema_decay": 0.9},
        "optimizer": OptimizerConfig(name="rmsprop_tf", lr=0.01),
    },
}
BAD = 7  # iteration, the second after one that is read


@pytest.fixture(autouse=True)
def read_when_logged(monkeypatch: pytest.MonkeyPatch, few_digits: None) -> None:  # noqa: F811
    monkeypatch.setattr(outcomes, "_SECONDS", 1e9)


def minibatches_of(trainer: Trainer) -> Iterator[tuple[Tensor, Tensor]]:
    """All that follow."""
    epoch, start = divmod(trainer.step, trainer.steps_per_epoch)
    each = trainer.config.accumulate
    first = itertools.islice(trainer.train_loader.epoch(epoch, start * each), trainer.steps_per_epoch * each - start)
    yield from first
    for later in itertools.count(epoch + 1):
        yield from itertools.islice(trainer.train_loader.epoch(later), trainer.steps_per_epoch * each)


def train(trainer: Trainer, iterations: int, *, bad: int | None = None) -> list[list[int]]:
    """Run iterations on the next minibatches, one of them with an image of NaN; returns their examples' indices."""
    seen: list[list[int]] = []

    def spoiled(number: int) -> Iterator[tuple[Tensor, Tensor]]:
        for images, labels in itertools.islice(minibatches, trainer.config.accumulate):
            seen.append(trainer.train_loader.indices.tolist())
            if number == bad:
                images[-1] = math.nan  # a clean one, or, in paired training, one after the first call
            yield images, labels

    minibatches = minibatches_of(trainer)
    for _ in range(iterations):
        trainer.train_step(spoiled(trainer.step + 1))
    return seen


def assert_same_state(first: Path, second: Path) -> None:
    """To the bit: weights, averages, buffers, the optimiser, generators, the schedule, means and the task."""
    assert first.name == second.name
    weights = sorted(path.name for path in first.glob("*.safetensors"))
    assert weights and all((first / name).read_bytes() == (second / name).read_bytes() for name in weights)
    assert same(checkpoints.load_state(first), checkpoints.load_state(second))


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_the_run_continues_as_if_it_had_not_happened(gpu: Runtime, tmp_path: Path, options: dict[str, Any]) -> None:
    config: TrainConfig = replace(CONFIG, **options)
    good = create_trainer(config, tmp_path / "good")
    train(good, BAD - 1)
    before = good.save()
    seen = train(good, 3)
    after = good.save()

    trainer = create_trainer(config, tmp_path / "spoiled")
    train(trainer, BAD - 1)
    with pytest.raises(NonFiniteLoss) as error:
        train(trainer, 3, bad=BAD)
    assert (error.value.iteration, error.value.indices, trainer.step) == (BAD, seen[0], BAD - 1)
    assert str(error.value).startswith(f"the loss is nan at iteration {BAD}, on the training examples ")
    assert_same_state(trainer.save(), before)
    train(trainer, 3)
    assert_same_state(trainer.save(), after)


@pytest.mark.parametrize("capture", [False, True])
def test_a_checkpoint_reads_first(gpu: Runtime, tmp_path: Path, capture: bool) -> None:
    trainer = create_trainer(replace(CONFIG, capture=capture), tmp_path)
    train(trainer, BAD - 1)
    saved = trainer.save()
    train(trainer, 2, bad=BAD)
    assert trainer.step == BAD + 1  # not read yet
    with pytest.raises(NonFiniteLoss, match=f"at iteration {BAD}") as error:
        trainer.save()
    assert checkpoints.latest(tmp_path) == error.value.checkpoint == saved
    assert trainer.step == BAD - 1


def test_what_was_not_read_before_a_checkpoint_is_loaded_is_forgotten(gpu: Runtime, tmp_path: Path) -> None:
    good = create_trainer(CONFIG, tmp_path / "good")
    train(good, 8)
    expected = good.save()
    trainer = create_trainer(CONFIG, tmp_path / "spoiled")
    train(trainer, 4)
    saved = trainer.save()
    train(trainer, 1, bad=5)
    trainer.load(saved)
    train(trainer, 4)
    assert_same_state(trainer.save(), expected)
