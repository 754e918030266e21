"""``capture``: whole iterations of training as graphs. The numbers are the CPU's, and so the same to the bit."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fastadv import models
from fastadv.train import (
    AttackConfig,
    ModelConfig,
    NonFiniteLoss,
    OptimizerConfig,
    ScheduleConfig,
    SentinelConfig,
    TrainConfig,
    Trainer,
    checkpoint,
    create_trainer,
)
from fastadv.train.capture import IterationGraphs
from fastadv.train.collapse import Check
from fastadv.train.sentinel import Sentinel
from tests.fake_cuda.runtime import Counts, Runtime
from tests.train.conftest import few_digits  # noqa: F401  a fixture
from tests.train.test_trainer import assert_same_run, at_step, same

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
    "trades": {"attack": AttackConfig(training="trades", eps=8.0, start_after=4, options={"steps": 2})},
    "bn batch": {"attack": AttackConfig(k=12, bn="batch")},
}


def replays(gpu: Runtime) -> int:
    return gpu.counts.launches["graph"]


def as_it_is(config: TrainConfig, run: Path) -> Trainer:
    """A run without recordings, whose optimiser has the form that can be recorded."""
    trainer = create_trainer(config, run)
    graphs = trainer._iterations._graphs
    assert graphs is not None
    graphs._m = 0  # no minibatch is of this size
    return trainer


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_the_run_without(gpu: Runtime, tmp_path: Path, options: dict[str, Any]) -> None:
    """To the bit: its weights, its optimiser, its generators and its log. Of fifteen iterations nine are replayed."""
    config = replace(CONFIG, **options)
    create_trainer(config, tmp_path / "captured").fit()
    assert replays(gpu) >= 3 * 9
    gpu.restart()
    as_it_is(config, tmp_path / "eager").fit()
    assert replays(gpu) == 0
    assert_same_run(tmp_path / "captured", tmp_path / "eager")


def test_each_phase_is_recorded(gpu: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    phases = [{"epochs": 1}, {"epochs": 1, "m": 20, "attack": {"eps": 4.0}}]  # five and eight iterations
    config = replace(CONFIG, attack=AttackConfig(k=12), epochs=2, phases=phases)
    create_trainer(config, tmp_path / "captured").fit()
    assert replays(gpu) == 3 * (3 + 6)
    monkeypatch.setattr(IterationGraphs, "choose", lambda graphs, images, labels: graphs._eager)
    create_trainer(config, tmp_path / "eager").fit()
    assert_same_run(tmp_path / "captured", tmp_path / "eager")


@pytest.mark.parametrize("name", ["sgd", "rmsprop", "rmsprop_tf", "adamw"])
def test_the_form_of_the_optimiser_changes_roundings_alone(tmp_path: Path, name: Any) -> None:
    """A run with capture against one without, of a network without dropout, whose steps add up no chance."""
    optimizer = OptimizerConfig(name=name, lr=0.002, weight_decay=0.01)
    config = replace(CONFIG, optimizer=optimizer, model=ModelConfig(options={"width": 0.25, "dropout": 0.0}))
    trainers = [create_trainer(replace(config, capture=capture), tmp_path / str(capture)) for capture in (True, False)]
    for trainer in trainers:
        trainer.fit()
    for mine, theirs in zip(*(trainer.model.parameters() for trainer in trainers), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("name", "at"), [*(("sgd", at) for at in (2, 4, 6, 9, 12)), ("rmsprop_tf", 9), ("adamw", 9)])
def test_resumed_run_is_the_uninterrupted_one(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, name: str, at: int
) -> None:
    config = replace(CONFIG, **OPTIONS[name])
    whole = tmp_path_factory.getbasetemp() / f"whole-{name}"  # by the first test that needs it
    if not whole.exists():
        create_trainer(config, whole).fit()
    trainer = create_trainer(config, tmp_path / "resumed")
    at_step(trainer, at, trainer.request_stop)
    trainer.fit()
    create_trainer(config, tmp_path / "resumed", resume=True).fit()
    assert_same_run(whole, tmp_path / "resumed")


def test_a_recovery_is_recorded_anew(gpu: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run goes back to iteration 5 with another attack, and is the one of which nothing is recorded."""

    def check(sentinel: Sentinel) -> Check:
        iteration = sentinel._run.task.state_dict()["iteration"]
        sentinel.__class__.check_(sentinel)  # type: ignore[attr-defined]  # between two replays
        return Check(0.5 if sentinel.recovered or iteration <= 8 else 0.0, 0.75, 64)

    monkeypatch.setattr(Sentinel, "check_", Sentinel.check, raising=False)
    monkeypatch.setattr(Sentinel, "check", check)
    config = replace(CONFIG, sentinel=SentinelConfig(every=2, then="recover"))
    for name, create in (("captured", create_trainer), ("eager", as_it_is)):
        gpu.restart()
        with pytest.warns(UserWarning, match="is back at iteration 5 and goes on with n_fgsm"):
            create(config, tmp_path / name).fit()
        assert (replays(gpu) > 0) is (name == "captured")
    assert_same_run(tmp_path / "captured", tmp_path / "eager")


@pytest.mark.parametrize("name", ["rmsprop", "rmsprop_tf", "adamw", "sgd"])
@pytest.mark.parametrize("first", [True, False])
def test_a_run_goes_on_with_or_without(gpu: Runtime, tmp_path: Path, name: Any, first: bool) -> None:
    """Whether it is captured is free: what counts steps is moved to where it is needed."""
    config = replace(CONFIG, optimizer=OptimizerConfig(name=name, lr=0.002))
    create_trainer(replace(config, capture=first, epochs=3), tmp_path / "run")  # a cosine knows its length
    trainer = create_trainer(replace(config, capture=first), tmp_path / "run")
    at_step(trainer, 5, trainer.request_stop)
    trainer.fit()
    gpu.restart()
    resumed = create_trainer(replace(config, capture=not first), tmp_path / "run", resume=True)
    resumed.fit()
    assert (replays(gpu) > 0) is not first
    counts = {int(state["step"]) for state in resumed.optimizer.state.values() if "step" in state}
    assert counts <= {15}


def test_graphs_of_a_state_that_is_gone_are_forgotten(gpu: Runtime, tmp_path: Path) -> None:
    """A checkpoint brings other tensors for the optimiser's momentum than those that were recorded."""
    create_trainer(CONFIG, tmp_path / "whole").fit()
    trainer = create_trainer(CONFIG, tmp_path / "run")
    at_step(trainer, 10, trainer.request_stop)
    trainer.fit()
    assert trainer.last_checkpoint is not None and replays(gpu) > 0
    minibatches = trainer.train_loader.epoch(2)
    for _ in range(3):
        trainer.train_step([next(minibatches)])
    trainer.load(trainer.last_checkpoint)
    trainer._asked_to_stop = False
    trainer.fit()
    states = [checkpoint.load_state(checkpoint.resolve(tmp_path / run)) for run in ("whole", "run")]
    assert same(states[0]["optimizer"], states[1]["optimizer"])


def test_a_loss_that_is_not_finite_stops_the_step(gpu: Runtime, tmp_path: Path) -> None:
    """In an iteration that is replayed: neither weights nor momentum are touched, and it is named."""
    trainer = create_trainer(replace(CONFIG, attack=AttackConfig(k=12)), tmp_path / "run")
    minibatches = [*trainer.train_loader.epoch(0), *trainer.train_loader.epoch(1)]
    for images, labels in minibatches[:6]:
        trainer.train_step([(images, labels)])
    state = {name: tensor.clone() for name, tensor in trainer.model.named_parameters()}
    momentum = [one["momentum_buffer"].clone() for one in trainer.optimizer.state.values()]
    images, labels = minibatches[6]
    gpu.counts = Counts()
    with pytest.raises(NonFiniteLoss, match=r"the loss is .*nan.* at iteration 7, on the training examples"):
        trainer.train_step([(images.fill_(math.nan), labels)])
    assert replays(gpu) == 2  # not the third, the step
    assert all(torch.equal(tensor, state[name]) for name, tensor in trainer.model.named_parameters())
    after = [one["momentum_buffer"] for one in trainer.optimizer.state.values()]
    assert all(map(torch.equal, momentum, after))
    assert trainer.step == 6


def test_a_minibatch_of_another_size_runs_as_it_is(gpu: Runtime, tmp_path: Path) -> None:
    trainers = []
    for create in (create_trainer, as_it_is):
        trainer = create(CONFIG, tmp_path / create.__name__)
        for epoch in range(3):
            for images, labels in trainer.train_loader.epoch(epoch):
                fewer = images[:20].clone(), labels[:20]  # before some of them become adversarial
                trainer.train_step([(images, labels)])
            launches = replays(gpu)
            trainer.train_step([fewer])
            assert replays(gpu) == launches
        trainers.append(trainer)
    assert launches > 0
    for mine, theirs in zip(*(trainer.model.parameters() for trainer in trainers), strict=True):
        assert torch.equal(mine, theirs)


class Waiting(nn.Module):
    """A network that waits for the device, in a way that shows in its operators or not; perhaps in training alone."""

    def __init__(self, net: nn.Module, shows: bool, always: bool) -> None:
        super().__init__()
        self.net, self.shows, self.always = net, shows, always

    def forward(self, images: Tensor) -> Tensor:
        if self.shows:
            images.sum().item()
        elif self.always or self.training:
            torch.cuda.synchronize()
        return self.net(images)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("shows", "always", "said"),
    [
        (True, True, "the model waits for the device, in aten._local_scalar_dense"),
        (False, True, "operation not permitted when stream is capturing"),
        (False, False, "operation not permitted when stream is capturing"),
    ],
)
def test_what_cannot_be_recorded_runs_without(
    gpu: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shows: bool, always: bool, said: str
) -> None:
    """It says so once, loses no iteration, and counts none twice."""
    create = models.create
    monkeypatch.setattr(models, "create", lambda *given, **options: Waiting(create(*given, **options), shows, always))
    config = replace(CONFIG, attack=AttackConfig(k=12))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        create_trainer(config, tmp_path / "captured").fit()
    [warning] = caught
    assert str(warning.message).startswith("training runs without capture: ") and said in str(warning.message)
    assert replays(gpu) == 0
    as_it_is(config, tmp_path / "eager").fit()
    assert_same_run(tmp_path / "captured", tmp_path / "eager")
