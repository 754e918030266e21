"""``capture``: whole iterations of training as graphs. The numbers are the CPU's, and so the same to the bit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from fastadv.train import (
    AttackConfig,
    ModelConfig,
    OptimizerConfig,
    ScheduleConfig,
    TrainConfig,
    Trainer,
    create_trainer,
)
from tests.fake_cuda.runtime import Runtime
from tests.train.conftest import few_digits  # noqa: F401  a fixture
from tests.train.runs import weights

pytestmark = [pytest.mark.usefixtures("few_digits"), pytest.mark.filterwarnings("error::UserWarning")]

# Everything that changes from one iteration to the next: dropout, drawn sizes, the learning rate, a delayed start.
CONFIG = TrainConfig(
    model=ModelConfig(options={"width": 0.25, "dropout": 0.5}),
    attack=AttackConfig(k=12, start_after=4),
    optimizer=OptimizerConfig(name="sgd", lr=0.02, weight_decay=1e-4),
    schedule=ScheduleConfig(name="cosine", warmup=3),
    m=32,
    epochs=3,
    seed=1,
    log_every=1,
    capture=True,
)
OPTIONS: dict[str, dict[str, Any]] = {
    "sgd": {},
    "rmsprop": {"optimizer": OptimizerConfig(name="rmsprop", lr=0.01)},
    "rmsprop_tf": {"optimizer": OptimizerConfig(name="rmsprop_tf", lr=0.01)},
    "adamw": {"optimizer": OptimizerConfig(name="adamw", lr=0.001, weight_decay=0.01)},
    "clipped": {"clip_grad_norm": 1.0},
    "averaged": {"ema_decay": 0.9},
    "bfloat16": {"precision": "bfloat16"},
    "fast": {"fast": True},
    "clean": {"attack": AttackConfig(k=0)},
    "all adversarial": {"attack": AttackConfig(k=32)},
    "step_rnd": {"attack": AttackConfig(name="step_rnd", k=12)},
    "iter_ll": {"attack": AttackConfig(name="iter_ll", k=12, eps=4.0)},
    "pgd": {"attack": AttackConfig(name="pgd", k=12, options={"steps": 2})},
    "noise": {"attack": AttackConfig(name="random_normal", k=12)},
    "fast training": {"attack": AttackConfig(training="fast", eps=8.0)},
    "bn batch": {"attack": AttackConfig(k=12, bn="batch")},
}


def replays(gpu: Runtime) -> int:
    return gpu.counts.launches["graph"]


def trained(config: TrainConfig, run: Path, steps: int | None = None) -> Trainer:
    trainer = create_trainer(config, run)
    if steps is None:
        trainer.fit()
    else:
        minibatches = [one for epoch in range(config.epochs) for one in trainer.train_loader.epoch(epoch)]
        for one in minibatches[:steps]:
            trainer.train_step([one])
    return trainer


def assert_same(one: Trainer, other: Trainer) -> None:
    mine, theirs = weights(one.model), weights(other.model)
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_the_same_as_without(
    gpu: Runtime, tmp_path: Path, options: dict[str, Any]
) -> None:
    """Beside a run whose iterations are all run as they are, by the same form of the optimiser."""
    config = replace(CONFIG, **options)
    captured = trained(config, tmp_path / "captured")
    assert replays(gpu) >= 3 * 9
    gpu.restart()
    eager = create_trainer(config, tmp_path / "eager")
    assert eager._graphs is not None
    eager._graphs._m = 0  # no minibatch is of this size
    eager.fit()
    assert replays(gpu) == 0
    assert_same(captured, eager)
