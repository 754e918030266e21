"""Optimisers in PyTorch's fused form, which are used on GPUs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from fastadv.train import OptimizerConfig, Trainer, create_trainer
from fastadv.train.optim import create_optimizer
from tests.fake_cuda.cases.test_late_reading import CONFIG
from tests.fake_cuda.runtime import Counts, Runtime
from tests.train.conftest import few_digits  # noqa: F401  a fixture
from tests.train.test_trainer import assert_same_run, at_step

pytestmark = pytest.mark.usefixtures("few_digits")


def forms(trainer: Trainer) -> set[Any]:
    return {group.get("fused") for group in trainer.optimizer.param_groups}


def unfused(trainer: Trainer) -> Trainer:
    """With an optimiser as earlier versions created it."""
    for group in trainer.optimizer.param_groups:
        group["fused"] = None
    return trainer


@pytest.mark.parametrize(
    ("config", "device", "fused"),
    [
        (OptimizerConfig(name="sgd"), "cuda", True),
        (OptimizerConfig(name="adamw"), "cuda", True),
        (OptimizerConfig(name="sgd"), "cpu", None),
        (OptimizerConfig(name="adamw"), "cpu", None),
        (OptimizerConfig(name="sgd", options={"foreach": True}), "cuda", None),
        (OptimizerConfig(name="adamw", options={"fused": False}), "cuda", False),
        (OptimizerConfig(name="rmsprop"), "cuda", None),
        (OptimizerConfig(name="rmsprop_tf"), "cuda", None),
    ],
)
def test_where_it_is_used(config: OptimizerConfig, device: str, fused: bool | None) -> None:
    optimizer = create_optimizer(torch.nn.Linear(2, 2).to(device), config)
    assert [group.get("fused") for group in optimizer.param_groups] == [fused] * len(optimizer.param_groups)


@pytest.mark.parametrize(("name", "launch"), [("sgd", "_fused_sgd_"), ("adamw", "_fused_adamw_")])
def test_it_takes_the_step_and_skips_it(gpu: Runtime, tmp_path: Path, name: Any, launch: str) -> None:
    """One launch for the weights with decay and one for the others; nothing is copied to undo it."""
    trainer = create_trainer(replace(CONFIG, optimizer=OptimizerConfig(name=name, lr=0.001)), tmp_path)
    minibatches = trainer.train_loader.epoch(0)
    for _ in range(2):
        gpu.counts = Counts()
        trainer.train_step([next(minibatches)])
    assert gpu.counts.launches[launch] == 2
    assert gpu.counts.launches["_foreach_copy_"] == 0
    assert trainer._iterations._guard is not None and trainer._iterations._guard._copies == []


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_a_run_that_an_earlier_version_began_keeps_its_form(tmp_path: Path, name: Any) -> None:
    """To the bit, as if it had not been interrupted."""
    config = replace(CONFIG, optimizer=OptimizerConfig(name=name, lr=0.002, weight_decay=0.01))
    unfused(create_trainer(config, tmp_path / "whole")).fit()
    trainer = unfused(create_trainer(config, tmp_path / "run"))
    at_step(trainer, 7, trainer.request_stop)
    trainer.fit()
    resumed = create_trainer(config, tmp_path / "run", resume=True)
    assert (resumed.step, forms(resumed)) == (7, {None})
    resumed.fit()
    assert_same_run(tmp_path / "whole", tmp_path / "run")


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_a_run_moves_between_devices(tmp_path: Path, name: Any) -> None:
    config = replace(CONFIG, optimizer=OptimizerConfig(name=name, lr=0.002))
    for first, second in (("cuda", "cpu"), ("cpu", "cuda")):
        run = tmp_path / first
        trainer = create_trainer(replace(config, device=first), run)
        at_step(trainer, 7, trainer.request_stop)
        trainer.fit()
        resumed = create_trainer(replace(config, device=second), run, resume=True)
        resumed.fit()
        assert resumed.finished and forms(resumed) == forms(trainer)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_it_differs_by_rounding_alone(tmp_path: Path, name: Any) -> None:
    """Of a network without dropout, whose steps add up no chance."""
    optimizer = OptimizerConfig(name=name, lr=0.002, weight_decay=0.01)
    config = replace(CONFIG, optimizer=optimizer, model=replace(CONFIG.model, options={"width": 0.25, "dropout": 0.0}))
    trainers = [create_trainer(config, tmp_path / "fused"), unfused(create_trainer(config, tmp_path / "other"))]
    for trainer in trainers:
        trainer.fit()
    for mine, theirs in zip(*(trainer.model.parameters() for trainer in trainers), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-4)
