"""Options of an iteration: accumulation, clipping, averages, precision, layout, compilation."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch._dynamo.testing
from functorch.compile import nop
from torch import Tensor, nn
from torch._dynamo.backends.common import aot_autograd

from fastadv import PixelSpace, data
from fastadv.train import (
    AdversarialTask,
    AttackConfig,
    FreeTask,
    OptimizerConfig,
    ScheduleConfig,
    TrainConfig,
    Trainer,
    checkpoint,
    create_trainer,
)
from fastadv.train.capture import create_graphs
from fastadv.train.checkpoint import CheckpointError
from fastadv.train.compiled import CompiledOrEager
from fastadv.train.device_averages import DeviceAverages
from tests.attacks.models import ConvNet, batch
from tests.train.test_trainer import at_step, log_of, same

pytestmark = pytest.mark.usefixtures("few_digits")


def weights(trainer: Trainer) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in trainer.model.named_parameters()}


def fit(config: TrainConfig, run: Path) -> Trainer:
    trainer = create_trainer(config, run)
    trainer.fit()
    return trainer


# --- accumulation ----------------------------------------------------------------------------------------------------


def test_accumulation_counts_iterations(config: TrainConfig, tmp_path: Path) -> None:
    attack = replace(config.attack, start_after=3)
    trainer = fit(replace(config, accumulate=2, attack=attack, epochs=2, log_every=1), tmp_path)
    assert (trainer.steps_per_epoch, trainer.step) == (2, 4)  # one of five minibatches is left out
    records = [record for record in log_of(tmp_path) if "loss" in record]
    assert [record["step"] for record in records] == [1, 2, 3, 4]
    assert [record["adversarial_accuracy"] is None for record in records] == [True, True, True, False]
    assert records[0]["lr"] == pytest.approx(0.02 / 3)  # the first of three iterations of warm-up


def test_accumulated_gradient_is_the_mean(config: TrainConfig, tmp_path: Path) -> None:
    trainer = create_trainer(replace(config, accumulate=3), tmp_path)
    minibatches = list(trainer.train_loader.epoch(0))[:3]
    gradients = []
    state = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
    rng = torch.get_rng_state()
    for images, labels in minibatches:
        trainer.model.zero_grad()
        trainer.task(images.clone(), labels).backward()
        gradients.append([parameter.grad for parameter in trainer.model.parameters()])
        trainer.model.zero_grad(set_to_none=True)
    trainer.model.load_state_dict(state)
    torch.set_rng_state(rng)
    trainer.train_step(iter(minibatches))
    for parameter, *parts in zip(trainer.model.parameters(), *gradients, strict=True):
        torch.testing.assert_close(parameter.grad, sum(parts) / 3, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("at", [3, 4])
def test_resumed_run_that_accumulates(at: int, config: TrainConfig, tmp_path: Path) -> None:
    config = replace(config, accumulate=2)
    whole = fit(config, tmp_path / "whole")
    trainer = create_trainer(config, tmp_path / "parts")
    at_step(trainer, at, trainer.request_stop)
    trainer.fit()
    resumed = create_trainer(config, tmp_path / "parts", resume=True)
    assert resumed.step == at
    resumed.fit()
    assert same(weights(resumed), weights(whole)) and log_of(tmp_path / "parts") == log_of(tmp_path / "whole")


def test_more_than_an_epoch_has(config: TrainConfig, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="data: accumulate=6 is more than the 5 minibatches"):
        create_trainer(replace(config, accumulate=6), tmp_path)


def test_images_of_one_class(config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = data.ImageSet(torch.zeros(8, 1, 8, 8, dtype=torch.uint8), torch.zeros(8, dtype=torch.int64), ("cats",))
    monkeypatch.setattr(data, "load", lambda *arguments: data.ImageData(train=images, test=images))
    with pytest.raises(ValueError, match="data: digits has one class, cats: classification needs two"):
        create_trainer(config, tmp_path)


# --- the gradient and the weights ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("limit", "clipped"), [(1e-3, True), (1e3, False)])
def test_clipping(limit: float, clipped: bool, config: TrainConfig, tmp_path: Path) -> None:
    sgd = OptimizerConfig(name="sgd", lr=1.0, options={"momentum": 0})
    config = replace(config, optimizer=sgd, schedule=ScheduleConfig(), clip_grad_norm=limit)
    trainer = create_trainer(config, tmp_path)
    before = weights(trainer)
    trainer.train_step(iter(list(trainer.train_loader.epoch(0))[:1]))
    moved = torch.cat([(after - before[name]).flatten() for name, after in weights(trainer).items()]).norm().item()
    assert (moved == pytest.approx(limit, rel=1e-3)) is clipped
    assert clipped or 0 < moved < limit


def test_averages_by_hand(config: TrainConfig, tmp_path: Path) -> None:
    config = replace(config, ema_decay=0.3, epochs=1)
    trainer = create_trainer(config, tmp_path)
    assert trainer.total_steps == 5
    expected: dict[str, Tensor] = {}

    def follow(train_step: Callable[[Iterable[tuple[Tensor, Tensor]]], None], minibatches: Any) -> None:
        train_step(minibatches)
        # TensorFlow's: the first iteration's weights, then (1 + n) / (10 + n) for n = 0, 1, ..., and 0.3 at most.
        decay = [0.0, 1 / 10, 2 / 11, 3 / 12, 0.3][trainer.step - 1]
        for name, value in weights(trainer).items():
            expected[name] = decay * expected.get(name, value) + (1 - decay) * value

    trainer.train_step = partial(follow, trainer.train_step)  # type: ignore[method-assign]
    trainer.fit()
    loaded = checkpoint.load_model(tmp_path, averaged=True).model
    for name, parameter in loaded.named_parameters():
        torch.testing.assert_close(parameter.detach(), expected[name])
        assert not torch.equal(parameter, trainer.model.get_parameter(name))
    assert not loaded.training
    (end,) = [record for record in log_of(tmp_path) if "mean_loss" in record]
    assert end["test_accuracy_averaged"] is not None


def test_averages_are_resumed(config: TrainConfig, tmp_path: Path) -> None:
    config = replace(config, ema_decay=0.9)
    whole = fit(config, tmp_path / "whole")
    trainer = create_trainer(config, tmp_path / "parts")
    at_step(trainer, 8, trainer.request_stop)
    trainer.fit()
    resumed = create_trainer(config, tmp_path / "parts", resume=True)
    resumed.fit()
    assert resumed.averages is not None and whole.averages is not None
    assert same(dict(resumed.averages.module.state_dict()), dict(whole.averages.module.state_dict()))


def test_averages_that_are_not_there(config: TrainConfig, tmp_path: Path) -> None:
    fit(replace(config, epochs=1), tmp_path)
    with pytest.raises(CheckpointError, match="has no averaged weights: its run was trained without --ema-decay"):
        checkpoint.load_model(tmp_path, averaged=True)


def test_damaged_averages_are_refused(config: TrainConfig, tmp_path: Path) -> None:
    trainer = fit(replace(config, epochs=1, ema_decay=0.9), tmp_path)
    assert trainer.last_checkpoint is not None
    (trainer.last_checkpoint / "averaged.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"is incomplete: no averaged\.safetensors"):
        checkpoint.read_meta(trainer.last_checkpoint)


def test_averages_without_a_hash_are_refused(config: TrainConfig, tmp_path: Path) -> None:
    path = fit(replace(config, epochs=1, ema_decay=0.9), tmp_path).last_checkpoint
    assert path is not None
    lines = (path / "SHA256SUMS").read_text().splitlines(keepends=True)
    (path / "SHA256SUMS").write_text("".join(line for line in lines if "averaged" not in line))
    with pytest.raises(CheckpointError, match=r"SHA256SUMS cannot be read \('averaged\.safetensors'\)"):
        checkpoint.read_meta(path)


# --- precision and speed ---------------------------------------------------------------------------------------------


def test_bfloat16(config: TrainConfig, tmp_path: Path) -> None:
    trainer = create_trainer(replace(config, precision="bfloat16", attack=AttackConfig(k=12)), tmp_path / "half")
    dtypes: dict[bool, set[torch.dtype]] = {True: set(), False: set()}
    classifier = next(module for module in trainer.model.modules() if isinstance(module, nn.Linear))
    classifier.register_forward_hook(lambda module, _, output: dtypes[module.training].add(output.dtype))
    trainer.fit()
    assert dtypes == {True: {torch.bfloat16}, False: {torch.bfloat16}}  # training; generation and test
    assert {parameter.dtype for parameter in trainer.model.parameters()} == {torch.float32}
    fit(replace(config, attack=AttackConfig(k=12)), tmp_path / "full")
    half, full = ([r["mean_loss"] for r in log_of(tmp_path / run) if "mean_loss" in r] for run in ("half", "full"))
    assert half != full and half == pytest.approx(full, rel=0.05)


@pytest.fixture
def colours(monkeypatch: pytest.MonkeyPatch) -> None:
    few = data.load("digits", None, False)

    def in_colour(images: data.ImageSet) -> data.ImageSet:
        return data.ImageSet(images.images.expand(-1, 3, -1, -1).contiguous(), images.labels, images.classes)

    monkeypatch.setattr(data, "load", lambda *_: data.ImageData(train=in_colour(few.train), test=in_colour(few.test)))


@pytest.mark.usefixtures("colours")
def test_channels_last(config: TrainConfig, tmp_path: Path) -> None:
    trainer = create_trainer(replace(config, channels_last=True), tmp_path / "last")
    inputs = []
    trainer.model.register_forward_pre_hook(
        lambda _, images: inputs.append(images[0].is_contiguous(memory_format=torch.channels_last))
    )
    trainer.fit()
    assert inputs and all(inputs)
    first = next(module for module in trainer.model.modules() if isinstance(module, nn.Conv2d))
    assert first.weight.is_contiguous(memory_format=torch.channels_last)
    fit(config, tmp_path / "first")
    last, usual = ([r["mean_loss"] for r in log_of(tmp_path / run) if "mean_loss" in r] for run in ("last", "first"))
    assert last == pytest.approx(usual, rel=1e-2)


@pytest.mark.usefixtures("colours")
def test_fast(config: TrainConfig, tmp_path: Path) -> None:
    """Sets the layout of the training pass and the attack's own option; training is the same up to rounding."""
    trainer = fit(replace(config, fast=True), tmp_path / "fast")
    first = next(module for module in trainer.model.modules() if isinstance(module, nn.Conv2d))
    assert first.weight.is_contiguous(memory_format=torch.channels_last)
    assert trainer.task.attack.fast
    fit(config, tmp_path / "usual")
    fast, usual = ([r["mean_loss"] for r in log_of(tmp_path / run) if "mean_loss" in r] for run in ("fast", "usual"))
    assert fast == pytest.approx(usual, rel=1e-2)


@pytest.mark.parametrize("name", ["random_sign", "step_ll", "pgd"])
def test_fast_goes_with_every_attack(config: TrainConfig, tmp_path: Path, name: str) -> None:
    config = replace(config, fast=True, epochs=1, attack=replace(config.attack, name=name))
    assert fit(config, tmp_path / "run").finished


@pytest.mark.filterwarnings("error:compile")
@pytest.mark.parametrize("option", ["channels_last", "compile"])
def test_the_same_gradients(option: str) -> None:
    """Gradients of Algorithm 1's loss with respect to every weight, in float64, up to rounding."""
    images, labels = batch(6, PixelSpace.unit(), torch.float64)

    def gradients(model: nn.Module, trained: nn.Module, images: Tensor) -> list[Tensor]:
        space = PixelSpace.unit()
        task = AdversarialTask(trained, attack="iter_ll", k=3, eps=4, space=space, label_smoothing=0.1)
        task(images, labels).backward()
        return [parameter.grad for parameter in model.parameters() if parameter.grad is not None]

    plain, other = (ConvNet().double() for _ in range(2))
    plain.features[-1].p = other.features[-1].p = 0.0  # compiled code draws different numbers for dropout
    trained, layout = other, torch.contiguous_format
    if option == "compile":
        trained = CompiledOrEager(other)
    else:
        layout = torch.channels_last
        other.to(memory_format=layout)  # type: ignore[call-overload]
    expected = gradients(plain, plain, images.clone())
    found = gradients(other, trained, images.clone(memory_format=layout))
    assert len(found) == len(expected) == len(list(plain.parameters()))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(list(other.buffers()), list(plain.buffers()), rtol=1e-9, atol=1e-12)


def compile_with(backend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))


def test_compiled(config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = replace(config, epochs=1)
    usual = fit(config, tmp_path / "usual")
    counter = torch._dynamo.testing.CompileCounter()
    compile_with(counter, monkeypatch)
    compiled = fit(replace(config, compile=True), tmp_path / "compiled")
    assert 1 <= counter.frame_count <= 2  # the training pass; it must not be compiled again for each minibatch
    assert same(weights(compiled), weights(usual))
    assert compiled.model.state_dict().keys() == usual.model.state_dict().keys()


def broken(*_: Any) -> Any:
    raise RuntimeError("there is no compiler")


# At once, or where nothing but the backward pass cannot be compiled.
BROKEN = {"forward": broken, "backward": aot_autograd(fw_compiler=nop, bw_compiler=broken)}


@pytest.mark.parametrize("backend", BROKEN.values(), ids=BROKEN)
def test_compilation_that_fails(
    backend: Any, config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(config, epochs=1)
    usual = fit(config, tmp_path / "usual")
    compile_with(backend, monkeypatch)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer = fit(replace(config, compile=True), tmp_path / "failed")
    (said,) = [text for warning in caught if (text := str(warning.message)).startswith("compile: ")]
    assert "torch.compile failed and training continues without it" in said and "\n" not in said
    assert "there is no compiler" in said
    assert same(weights(trainer), weights(usual))


# --- capture without a GPU. Recorded runs are in tests/fake_cuda/cases/test_iterations.py -------------------


def test_averages_on_the_device_are_those_of_the_host(config: TrainConfig, tmp_path: Path) -> None:
    """Same decays; counters are copied."""
    trainer = create_trainer(replace(config, ema_decay=0.5), tmp_path)
    assert trainer.averages is not None
    other = copy.deepcopy(trainer.averages)
    on_device = DeviceAverages(other, trainer.model, torch.device("cpu"))
    minibatches = trainer.train_loader.epoch(0)
    for step in range(1, 6):
        trainer.train_step([next(minibatches)])
        on_device.load(step)
        on_device.apply()
    for mine, theirs in zip(
        other.module.state_dict().values(), trainer.averages.module.state_dict().values(), strict=True
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=1e-7)


def test_capture_without_a_gpu(config: TrainConfig, tmp_path: Path) -> None:
    """It warns once, and the run equals one without capture."""
    with pytest.warns(UserWarning, match="training runs without capture: CUDA graphs need a GPU") as caught:
        trainer = fit(replace(config, capture=True), tmp_path / "captured")
    assert len(caught) == 1
    assert same(weights(trainer), weights(fit(config, tmp_path / "plain")))


def test_capture_refuses_other_tasks_and_optimisers(config: TrainConfig, tmp_path: Path) -> None:
    made = create_trainer(config, tmp_path)
    options = {name: getattr(made, name) for name in ("model", "task", "optimizer", "averages")}
    iterations = made._iterations
    for other, said in (
        ({"task": FreeTask(made.model, eps=4, space=PixelSpace.unit())}, "a task whose calls can be recorded"),
        ({"optimizer": torch.optim.Adagrad(made.model.parameters())}, "RMSpropTF, SGD, AdamW, got Adagrad"),
    ):
        with pytest.raises(ValueError, match=said):
            create_graphs(
                iterations._forward_alone,
                iterations._backward,
                iterations._step_weights,
                guard=None,
                m=32,
                **options | other,
            )
