"""Training on a GPU, to the last weight: what the CPU computes."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fastadv.train import AttackConfig, DataConfig, ModelConfig, OptimizerConfig, TrainConfig, create_trainer
from tests.fake_cuda.runtime import Counts, Runtime
from tests.train.conftest import few_digits  # noqa: F401  a fixture
from tests.train.runs import weights

OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "fast": {"fast": True},
    "bfloat16": {"precision": "bfloat16"},
    "accumulate": {"accumulate": 2},
    "clipped": {"clip_grad_norm": 1.0},
    "averaged": {"ema_decay": 0.9},
    "rmsprop_tf": {"optimizer": OptimizerConfig(name="rmsprop_tf", lr=0.01)},
}
CONFIG = TrainConfig(
    model=ModelConfig(options={"width": 0.25}), attack=AttackConfig(k=12), m=32, epochs=2, seed=1, log_every=5
)


pytestmark = pytest.mark.usefixtures("few_digits")


def trained(run: Path, config: TrainConfig) -> dict[str, Tensor]:
    trainer = create_trainer(config, run)
    trainer.fit()
    return {name: tensor.cpu() for name, tensor in weights(trainer.model).items()}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_the_weights_of_the_cpu(tmp_path: Path, options: dict[str, Any]) -> None:
    """To the bit: both are computed by the CPU, once by way of the GPU's code."""
    config = replace(CONFIG, **options)
    on_cpu, on_gpu = (trained(tmp_path / device, replace(config, device=device)) for device in ("cpu", "cuda"))
    assert all(torch.equal(on_cpu[name], on_gpu[name]) for name in on_cpu)


def test_static_sources(gpu: Runtime, tmp_path: Path) -> None:
    """The same weights as on the CPU; and an iteration on a source waits for its metrics alone."""
    trained(tmp_path / "source", replace(CONFIG, epochs=1, device="cpu"))
    config = replace(CONFIG, epochs=1, attack=AttackConfig(k=12, sources=[str(tmp_path / "source")]))
    on_cpu, on_gpu = (trained(tmp_path / device, replace(config, device=device)) for device in ("cpu", "cuda"))
    assert all(torch.equal(on_cpu[name], on_gpu[name]) for name in on_cpu)
    symmetric = replace(config, data=DataConfig(space="symmetric"), device="cuda")  # the source's is another
    trainer = create_trainer(symmetric, tmp_path / "symmetric")
    minibatches = trainer.train_loader.epoch(0)
    for iteration in range(5):
        gpu.counts = Counts()
        trainer.train_step([next(minibatches)])
        if iteration >= 3:  # before, the first batch of each network is looked at
            assert not +gpu.counts.blocking_copies and +gpu.counts.waits <= Counter({"Event.synchronize": 1})
