"""create_trainer on a GPU: its device by each name, each way to compute, a run that is resumed, and a process group."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch import distributed as dist

from fastadv import PixelSpace, TruncatedNormalEps
from fastadv.distributed import data_parallel
from fastadv.train import AdversarialTask, AttackConfig, ModelConfig, TrainConfig, Trainer, create_trainer
from tests.attacks.models import ConvNet, batch
from tests.gpu.device import DEVICE, REHEARSAL, needs_streams
from tests.train.conftest import few_digits  # noqa: F401  a fixture

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.usefixtures("few_digits"),
    pytest.mark.filterwarnings("error:.*runs without capture=True"),
]
NAMES = ["auto", "cpu"] if REHEARSAL else ["auto", "cuda", "cuda:0"]
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "fast": {"fast": True},
    "bfloat16": {"precision": "bfloat16"},
    "fast, bfloat16": {"fast": True, "precision": "bfloat16"},
}
CONFIG = TrainConfig(
    model=ModelConfig(options={"width": 0.25, "dropout": 0.5}),
    attack=AttackConfig(k=12, start_after=2),
    m=32,
    epochs=3,
    seed=1,
    log_every=1,
    device=NAMES[1],
)
STOP = 7  # of fifteen iterations, in the middle of the second epoch


@pytest.mark.parametrize("name", NAMES)
def test_every_name_of_the_device(tmp_path: Path, name: str) -> None:
    trainer = create_trainer(replace(CONFIG, device=name), tmp_path / "run")
    expected = DEVICE if REHEARSAL else torch.device("cuda", torch.cuda.current_device())
    assert trainer.device == expected
    trainer.train_step(trainer.train_loader.epoch(0))
    assert all(tensor.device == expected for tensor in trainer.model.state_dict().values())


def stop_at(trainer: Trainer, step: int) -> None:
    """Ask for a stop right after an iteration."""
    train_step = trainer.train_step

    def and_then(minibatches: Iterable[tuple[Tensor, Tensor]]) -> None:
        train_step(minibatches)
        if trainer.step == step:
            trainer.request_stop()

    trainer.train_step = and_then  # type: ignore[method-assign]


def losses(run: Path) -> list[float]:
    records = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [record["loss"] for record in records if "loss" in record]


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_a_resumed_run_is_the_undisturbed_one(tmp_path: Path, options: dict[str, Any]) -> None:
    """To the bit, dropout's draws included: the same algorithms are chosen each time, and none of them uses atomics."""
    config = replace(CONFIG, **options)
    whole = create_trainer(config, tmp_path / "whole")
    whole.fit()
    stopped = create_trainer(config, tmp_path / "stopped")
    stop_at(stopped, STOP)
    stopped.fit()
    assert stopped.step == STOP
    resumed = create_trainer(config, tmp_path / "stopped", resume=True)
    assert resumed.step == STOP
    resumed.fit()
    assert resumed.step == whole.step == 15
    expected = whole.model.state_dict()
    for name, tensor in resumed.model.state_dict().items():
        assert torch.equal(tensor, expected[name]), name
    found = losses(tmp_path / "stopped")
    assert found == losses(tmp_path / "whole") and len(found) == 15
    assert sum(found[-5:]) < sum(found[:5])  # and it learns


@needs_streams
def test_fast_replays_graphs(replays: list[int], tmp_path: Path) -> None:
    """From the third minibatch with adversarial examples on."""
    trainer = create_trainer(replace(CONFIG, fast=True), tmp_path / "run")
    minibatches = trainer.train_loader.epoch(0)
    replayed = []
    for _ in range(5):
        trainer.train_step(islice(minibatches, 1))
        replayed.append(len(replays))
    assert replayed[0] == 0 and replayed[-1] > replayed[-2] > 0


@pytest.fixture
def group_of_one(tmp_path: Path) -> Iterator[None]:
    """A process group of this process alone, as torchrun's are on a GPU."""
    store = dist.FileStore(str(tmp_path / "store"), 1)
    dist.init_process_group("gloo" if REHEARSAL else "nccl", store=store, rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def trained(wrap: Callable[[nn.Module], nn.Module]) -> dict[str, Tensor]:
    """Eight iterations of Algorithm 1 with captured generation, the network in a wrapper of the caller's."""
    torch.manual_seed(0)
    model = ConvNet().to(DEVICE).train()
    options = {} if REHEARSAL else {"capture": True}
    task = AdversarialTask(
        wrap(model), k=8, eps=TruncatedNormalEps(), space=PixelSpace.unit(), seed=1, attack_options=options
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for seed in range(8):
        images, labels = (tensor.to(DEVICE) for tensor in batch(16, seed=seed))
        optimizer.zero_grad(set_to_none=False)
        task(images, labels).backward()
        optimizer.step()
    return model.state_dict()


@pytest.mark.usefixtures("group_of_one")
def test_a_process_group_with_capture(replays: list[int]) -> None:
    """Its threads work beside the recording, and a mean over one process is the gradient itself, to the bit."""
    device = DEVICE if REHEARSAL else torch.device("cuda", torch.cuda.current_device())
    wrapped = trained(lambda model: data_parallel(model, device, static_graph=False))
    assert bool(replays) is not REHEARSAL
    alone = trained(lambda model: model)
    for name, tensor in wrapped.items():
        assert torch.equal(tensor, alone[name]), name
