from __future__ import annotations

import io
import json
import math
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor, nn

from fastadv import data, models
from fastadv.train import (
    AttackConfig,
    DataConfig,
    ModelConfig,
    NonFiniteLoss,
    OptimizerConfig,
    TrainConfig,
    Trainer,
    checkpoint,
    checkpoint_content,
    create_trainer,
    pace,
)
from fastadv.train.json_log import JsonLog
from fastadv.train.monitor import Progress
from fastadv.train.pace import Pace
from fastadv.train.run_records import EpochRecord, StepRecord
from fastadv.train.validation import accuracy
from fastadv.utils.text import counted

pytestmark = pytest.mark.usefixtures("few_digits")


class Killed(Exception):
    pass


def at_step(trainer: Trainer, step: int, action: Callable[[], Any]) -> None:
    """Call ``action`` right after iteration ``step``, before it is logged."""
    train_step = trainer.train_step

    def and_then(minibatches: Iterable[tuple[Tensor, Tensor]]) -> None:
        train_step(minibatches)
        if trainer.step == step:
            action()

    trainer.train_step = and_then  # type: ignore[method-assign]


def kill() -> None:
    raise Killed


def log_of(run: Path) -> list[dict[str, Any]]:
    records = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    for record in records:
        for timed in ("images_per_s", "data_wait"):
            record.pop(timed, None)
    return records


def same(a: Any, b: Any) -> bool:
    """Equal bit for bit, in every tensor."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return torch.equal(a, b) if isinstance(a, Tensor) else bool(a == b)


def assert_same_run(one: Path, other: Path) -> None:
    first, second = (checkpoint.latest(run) for run in (one, other))
    assert first is not None and second is not None
    assert first.name == second.name
    assert (first / "model.safetensors").read_bytes() == (second / "model.safetensors").read_bytes()
    assert same(checkpoint.load_state(first), checkpoint.load_state(second))
    assert log_of(one) == log_of(other)


# --- resume ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("interrupt", "resumes_at"),
    [
        pytest.param(lambda trainer: at_step(trainer, 8, kill), 6, id="killed in an epoch"),
        pytest.param(lambda trainer: at_step(trainer, 2, kill), 0, id="killed before the first checkpoint"),
        pytest.param(lambda trainer: at_step(trainer, 10, kill), 9, id="killed before the test of an epoch"),
        pytest.param(lambda trainer: at_step(trainer, 11, kill), 10, id="killed after an epoch"),
        pytest.param(lambda trainer: at_step(trainer, 7, trainer.request_stop), 7, id="stopped in an epoch"),
        pytest.param(lambda trainer: at_step(trainer, 10, trainer.request_stop), 10, id="stopped at an epoch's end"),
    ],
)
def test_resumed_run_is_the_uninterrupted_one(
    interrupt: Callable[[Trainer], None], resumes_at: int, config: TrainConfig, tmp_path: Path
) -> None:
    create_trainer(config, tmp_path / "whole").fit()

    run = tmp_path / "interrupted"
    trainer = create_trainer(config, run)
    interrupt(trainer)
    try:
        trainer.fit()
    except Killed:
        (run / "log.jsonl").open("a").write('{"step": 1')  # a truncated line
    assert not trainer.finished
    resumed = create_trainer(config, run, resume=True)
    assert resumed.step == resumes_at
    resumed.fit()
    assert resumed.finished and resumed.step == 15
    assert_same_run(tmp_path / "whole", run)


@pytest.mark.parametrize(
    "optimizer",
    [
        pytest.param(OptimizerConfig(name="sgd", lr=0.1, options={"momentum": 0}), id="sgd, which keeps nothing"),
        pytest.param(OptimizerConfig(name="sgd", lr=0.1), id="sgd"),
        pytest.param(OptimizerConfig(name="rmsprop", lr=0.02, options={"momentum": 0}), id="rmsprop without momentum"),
        pytest.param(OptimizerConfig(name="rmsprop_tf", lr=0.02), id="rmsprop_tf"),
        pytest.param(OptimizerConfig(name="adamw", lr=0.01), id="adamw"),
    ],
)
def test_a_run_with_any_optimizer_is_resumed(optimizer: OptimizerConfig, config: TrainConfig, tmp_path: Path) -> None:
    config = replace(config, optimizer=optimizer, epochs=1)
    create_trainer(config, tmp_path / "whole").fit()
    trainer = create_trainer(config, tmp_path / "stopped")
    at_step(trainer, 2, trainer.request_stop)
    trainer.fit()
    resumed = create_trainer(config, tmp_path / "stopped", resume=True)
    assert resumed.step == 2
    resumed.fit()
    assert_same_run(tmp_path / "whole", tmp_path / "stopped")


def test_the_last_iteration_of_an_epoch_has_no_checkpoint_without_its_test(config: TrainConfig, tmp_path: Path) -> None:
    config = replace(config, checkpoint_every=5)  # as many as the epoch has
    create_trainer(config, tmp_path / "whole").fit()
    run = tmp_path / "killed"
    trainer = create_trainer(config, run)
    at_step(trainer, 10, lambda: setattr(trainer.run, "test_loader", None))
    with pytest.raises(AttributeError):
        trainer.fit()
    create_trainer(config, run, resume=True).fit()
    assert_same_run(tmp_path / "whole", run)


def test_without_the_command_lines_parser(config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Training and resuming in Python need no jsonargparse."""
    monkeypatch.setitem(sys.modules, "jsonargparse", None)
    checkpoint_content._parsed_config.cache_clear()
    create_trainer(replace(config, epochs=1), tmp_path).fit()
    assert create_trainer(replace(config, epochs=1), tmp_path, resume=True).step == 5


def test_resume_after_the_last_checkpoint_was_damaged(config: TrainConfig, tmp_path: Path) -> None:
    create_trainer(config, tmp_path / "whole").fit()
    run = tmp_path / "damaged"
    create_trainer(config, run).fit()
    (run / "checkpoints/step-00000015/state.pt").write_bytes(b"")
    with pytest.warns(UserWarning, match=r"step-00000015.*falling back to.*step-00000012"):
        resumed = create_trainer(config, run, resume=True)
    resumed.fit()
    assert_same_run(tmp_path / "whole", run)


@pytest.mark.parametrize(("seed", "equal"), [(0, True), (1, False)])
def test_seed_decides_the_weights(seed: int, equal: bool, config: TrainConfig, tmp_path: Path) -> None:
    for run, value in (("a", 0), ("b", seed)):
        torch.manual_seed(len(run))  # independent of what the process did before
        create_trainer(replace(config, seed=value, epochs=1), tmp_path / run).fit()
    weights = [(tmp_path / run / "checkpoints/step-00000005/model.safetensors").read_bytes() for run in "ab"]
    assert (weights[0] == weights[1]) is equal


def test_the_trial_of_the_network_changes_no_bit_of_the_run(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_trainer(config, tmp_path / "tried").fit()
    monkeypatch.setattr("fastadv.train.parts.check_accepts", lambda *_, **__: None)
    create_trainer(config, tmp_path / "untried").fit()
    assert_same_run(tmp_path / "tried", tmp_path / "untried")


@pytest.mark.parametrize(("m", "said"), [(2, None), (1, "Expected more than 1 value per channel when training")])
def test_the_trial_has_as_many_images_as_a_minibatch(
    m: int, said: str | None, config: TrainConfig, tmp_path: Path
) -> None:
    config = replace(config, m=m, attack=AttackConfig(k=1), model=ModelConfig(name="timm/resnet18"))
    if said is None:
        create_trainer(config, tmp_path)
        return
    with pytest.raises(ValueError, match=rf"model: timm/resnet18: images .* do not fit: {said}.* choose another model"):
        create_trainer(config, tmp_path)


@pytest.mark.parametrize("space", ["symmetric", "unit", "raw"])
def test_a_space_that_inception_v3_is_not_made_for_warns(
    space: Any, config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(config, data=DataConfig(space=space), model=ModelConfig(name="inception_v3"))
    expected = [] if space == "symmetric" else [f"inception_v3 is designed for data.space symmetric, got {space}"]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pytest.raises(ValueError):  # digits are too small anyway: then the space does not matter
            create_trainer(config, tmp_path)
        assert caught == []
        create_small = models.create
        monkeypatch.setattr(models, "create", lambda _, **options: create_small("small_cnn", **options))
        monkeypatch.setattr("fastadv.train.parts.check_accepts", lambda *_, **__: None)
        create_trainer(config, tmp_path)
    assert [str(warning.message) for warning in caught] == expected


def test_finished_run_is_left_alone(config: TrainConfig, tmp_path: Path) -> None:
    create_trainer(config, tmp_path / "run").fit()
    before = log_of(tmp_path / "run")
    resumed = create_trainer(config, tmp_path / "run", resume=True)
    assert resumed.finished
    resumed.fit()
    assert log_of(tmp_path / "run") == before


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: replace(c, m=16), "m was 32 and is now 16"),
        (lambda c: replace(c, attack=replace(c.attack, k=0)), "attack.k was 12 and is now 0"),
        (
            lambda c: replace(c, model=replace(c.model, options={"dropout": 0.5})),
            "another configuration: model.options.width was 0.25 and is now not given",
        ),
        (
            lambda c: replace(c, attack=replace(c.attack, options={"aux_weight": 0.2, "fast": True})),
            "another configuration: attack.options.aux_weight was not given and is now 0.2",
        ),
        (
            lambda c: replace(c, epochs=4),
            "epochs was 3 and is now 4; a cosine schedule depends on the number of epochs",
        ),
        (lambda c: replace(c, schedule=replace(c.schedule, name="constant"), seed=7), "seed was 0 and is now 7"),
        (lambda c: replace(c, keep=9, log_every=1, checkpoint_every=1, threads=2), None),
        (lambda c: replace(c, fast=True, channels_last=True), None),
        pytest.param(
            lambda c: replace(c, capture=True), None, marks=pytest.mark.filterwarnings("ignore:training runs without")
        ),
        *(
            (lambda c, name=name: replace(c, attack=replace(c.attack, options={name: True})), None)
            for name in ("fast", "fold_bn", "compile", "capture")
        ),
    ],
)
def test_resume_with_another_configuration(
    change: Callable[[TrainConfig], TrainConfig], said: str | None, config: TrainConfig, tmp_path: Path
) -> None:
    trainer = create_trainer(config, tmp_path / "run")
    at_step(trainer, 4, trainer.request_stop)
    trainer.fit()
    if said is None:
        assert create_trainer(change(config), tmp_path / "run", resume=True).step == 4
        return
    with pytest.raises(ValueError) as error:
        create_trainer(change(config), tmp_path / "run", resume=True)
    assert said in str(error.value)


def test_a_run_may_be_extended_where_the_schedule_allows(config: TrainConfig, tmp_path: Path) -> None:
    config = replace(config, schedule=replace(config.schedule, name="constant"))
    create_trainer(replace(config, epochs=2), tmp_path / "extended").fit()
    create_trainer(config, tmp_path / "extended", resume=True).fit()
    create_trainer(config, tmp_path / "whole").fit()
    assert_same_run(tmp_path / "whole", tmp_path / "extended")


def test_folders_that_cannot_be_used(config: TrainConfig, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no checkpoint to resume from"):
        create_trainer(config, tmp_path / "new", resume=True)
    create_trainer(config, tmp_path / "run").fit()
    with pytest.raises(FileExistsError, match="already holds a run: continue it with --resume"):
        create_trainer(config, tmp_path / "run")


def test_a_run_without_a_first_checkpoint_is_begun_again(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, data: bytes) -> None:
        raise OSError("No space left on device")

    with monkeypatch.context() as patch, pytest.raises(checkpoint.CheckpointError):
        patch.setattr(checkpoint, "_write", full)
        create_trainer(config, tmp_path).fit()
    create_trainer(config, tmp_path).fit()
    assert checkpoint.load_model(tmp_path).step == 15


def fewer(images: data.ImageSet) -> data.ImageSet:
    """The number of iterations is unchanged."""
    return data.ImageSet(images.images[:-1], images.labels[:-1], images.classes)


def larger(images: data.ImageSet) -> data.ImageSet:
    return data.ImageSet(images.images.repeat(1, 1, 2, 2), images.labels, images.classes)


def relabelled(images: data.ImageSet) -> data.ImageSet:
    return data.ImageSet(images.images, images.labels.roll(1), images.classes)


def renamed(images: data.ImageSet) -> data.ImageSet:
    return data.ImageSet(images.images, images.labels, (*images.classes[:8], "nine", "eight"))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (fewer, "it had 160 images and now has 159"),
        (larger, r"its images were \[1, 8, 8\] and now are \[1, 16, 16\]"),
        (relabelled, "its 160 images have other labels"),
        (renamed, "class 8 was '8' and is 'nine', class 9 was '9' and is 'eight'"),
    ],
)
def test_a_run_resumes_only_with_its_own_training_set(
    changed: Callable[[data.ImageSet], data.ImageSet],
    said: str,
    config: TrainConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = replace(config, m=30, epochs=1)
    create_trainer(config, tmp_path / "run").fit()
    few = data.load("digits", None, False)
    other = data.ImageData(changed(few.train), few.test)
    monkeypatch.setattr(data, "load", lambda name, root, download: other)
    with pytest.raises(ValueError, match=f"from another training set than digits: {said}. Resume with"):
        create_trainer(config, tmp_path / "run", resume=True)


# --- non-finite values -----------------------------------------------------------------------------------------------


class Spoiled:
    """A task whose loss is multiplied by ``value`` at one iteration."""

    def __init__(self, task: Any, at: int, value: float) -> None:
        self.task, self.at, self.value = task, at, value

    def __getattr__(self, name: str) -> Any:
        return getattr(self.task, name)

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        loss: Tensor = self.task(images, labels)
        return loss * self.value if self.task.iteration == self.at else loss


@pytest.mark.parametrize(("value", "text"), [(math.nan, "nan"), (math.inf, "inf")])
def test_loss_that_is_not_finite(value: float, text: str, config: TrainConfig, tmp_path: Path) -> None:
    trainer = create_trainer(config, tmp_path)
    trainer.run.task = Spoiled(trainer.task, at=8, value=value)
    before: dict[str, Tensor] = {}
    at_step(trainer, 7, lambda: before.update({n: p.detach().clone() for n, p in trainer.model.named_parameters()}))
    with pytest.raises(NonFiniteLoss) as stopped:
        trainer.fit()
    error = stopped.value
    loader = create_trainer(config, tmp_path / "other").train_loader
    next(loader.epoch(1, start=2))  # the third minibatch of the second epoch
    assert (error.iteration, error.checkpoint) == (8, tmp_path / "checkpoints/step-00000006")
    assert error.indices == loader.indices.tolist() and len(error.indices) == 32
    hints = ("a lower optimizer.lr", "schedule.warmup", "eps is in pixel values")
    for words in (f"the loss is {text} at iteration 8", str(error.indices), "step-00000006", *hints):
        assert words in str(error)
    assert same(before, {name: p.detach() for name, p in trainer.model.named_parameters()})
    assert trainer.step == 7


def test_weights_that_are_not_finite_are_never_saved(config: TrainConfig, tmp_path: Path) -> None:
    trainer = create_trainer(config, tmp_path)

    def spoil() -> None:
        with torch.no_grad():
            next(trainer.model.parameters()).view(-1)[0] = math.nan

    at_step(trainer, 6, spoil)
    with pytest.raises(NonFiniteLoss, match=r"the weights are not finite at iteration 6.*step-00000005"):
        trainer.fit()
    assert checkpoint.latest(tmp_path) == tmp_path / "checkpoints/step-00000005"


# --- records and log -------------------------------------------------------------------------------------------------


def test_log(config: TrainConfig, tmp_path: Path) -> None:
    create_trainer(config, tmp_path).fit()
    records = log_of(tmp_path)
    steps = [record for record in records if "loss" in record]
    assert [(r["step"], r["epoch"]) for r in steps] == [(2, 1), (4, 1), (6, 2), (8, 2), (10, 2), (12, 3), (14, 3)]
    assert [r["adversarial_accuracy"] is None for r in steps] == [True, True] + 5 * [False]  # start_after = 4
    assert all(0 <= r["clean_accuracy"] <= 1 and math.isfinite(r["loss"]) for r in steps)
    assert steps[0]["lr"] == pytest.approx(0.02 * 2 / 3)  # the second of three iterations of warm-up
    epochs = [record for record in records if "test_accuracy" in record]
    assert [(r["step"], r["epoch"]) for r in epochs] == [(5, 1), (10, 2), (15, 3)]
    loaded = checkpoint.load_model(tmp_path)
    test_loader = create_trainer(config, tmp_path / "other").test_loader
    assert epochs[-1]["test_accuracy"] == accuracy(loaded.model, test_loader.epoch(0))


@pytest.mark.parametrize(
    ("line", "strange"),
    [
        (b'{"step": 1', 0),  # truncated
        (b'{"step": 99}\n', 0),  # a later step
        (b"\xff\x00\x80\n", 1),
        (b"[]\n3\n{}\n", 3),
        (b'{"step": null}\n{"step": "1"}\n{"step": true}\n', 3),
        (b"[" * 100_000 + b"\n", 1),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_log_that_is_something_else(line: bytes, strange: int, tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(b'{"step": 1}\n' + line)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        JsonLog(path, step=2).close()
    assert path.read_bytes() == b'{"step": 1}\n'
    assert [str(one.message).partition(" of ")[0] for one in caught] == [counted(strange, "line")] * bool(strange)
    assert not strange or (tmp_path / "log.jsonl.damaged").read_bytes() == b'{"step": 1}\n' + line


def test_a_log_on_a_device(tmp_path: Path) -> None:
    """Reading /dev/full never ends."""
    (tmp_path / "log.jsonl").symlink_to("/dev/full")
    with pytest.raises(OSError, match=r"this is a device, not a regular file: .*log\.jsonl"):
        JsonLog(tmp_path / "log.jsonl", step=0)


def test_an_epoch_ends_with_the_means_of_its_minibatches(config: TrainConfig, tmp_path: Path) -> None:
    create_trainer(replace(config, log_every=1), tmp_path).fit()
    records = log_of(tmp_path)
    for epoch, clean_examples in ((1, [32, 32, 32, 32, 20]), (2, [20] * 5)):  # start_after = 4, then k = 12
        steps = [record for record in records if "loss" in record and record["epoch"] == epoch]
        (end,) = [record for record in records if "test_accuracy" in record and record["epoch"] == epoch]
        assert end["mean_loss"] == pytest.approx(sum(step["loss"] for step in steps) / 5)
        clean = sum(step["clean_accuracy"] * n for step, n in zip(steps, clean_examples, strict=True))
        assert end["mean_clean_accuracy"] == pytest.approx(clean / sum(clean_examples))
        adversarial = [step["adversarial_accuracy"] for step in steps if step["adversarial_accuracy"] is not None]
        assert end["mean_adversarial_accuracy"] == pytest.approx(sum(adversarial) / len(adversarial))


def test_tensorboard(config: TrainConfig, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    create_trainer(config, tmp_path).fit()
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    expected = {"loss", "clean_accuracy", "adversarial_accuracy", "lr", "images_per_s", "data_wait"}
    expected |= {"cost", "mean_loss", "mean_clean_accuracy", "mean_adversarial_accuracy"}
    assert set(events.Tags()["scalars"]) == {f"train/{name}" for name in expected} | {"test/accuracy"}
    losses = [record["loss"] for record in log_of(tmp_path) if "loss" in record]
    assert [event.value for event in events.Scalars("train/loss")] == pytest.approx(losses)


@pytest.mark.parametrize("terminal", [False, True])
def test_progress(terminal: bool) -> None:
    output = io.StringIO()
    console = Console(file=output, force_terminal=terminal, width=160)
    progress = Progress(step=0, total_steps=10, epochs=2, console=console)
    pace = {"images_per_s": 1234.0, "data_wait": 0.071, "cost": 0.5}
    accuracies = {"clean_accuracy": 0.5, "adversarial_accuracy": None}
    progress.write(StepRecord(step=5, epoch=1, loss=0.25, lr=0.1, **accuracies, **pace))
    means = {"mean_loss": 0.75, "mean_clean_accuracy": 0.625, "mean_adversarial_accuracy": None}
    progress.write(EpochRecord(step=5, epoch=1, test_accuracy=0.875, cost=1.0, **means))
    progress.close()
    line = "epoch 1/2  1,234 images/s  data wait 7%  mean loss 0.750  clean 62.5%  test 87.5%"
    assert line in output.getvalue()
    assert ("5/10" in output.getvalue()) is terminal
    if not terminal:
        assert output.getvalue() == line + "\n"


class Clock:
    """A clock that advances only when told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(pace, "time", SimpleNamespace(perf_counter=lambda: self.now))

    def passes(self, seconds: float) -> None:
        self.now += seconds


def test_pace_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)

    def loaded() -> Iterator[int]:
        for seconds in (4, 1, 1):  # the first with the start of the workers
            clock.passes(seconds)
            yield seconds

    pace = Pace()
    for _ in pace.timed(loaded()):
        clock.passes(2)
        pace.count(30)
    assert pace.read() == (90 / 12, 6 / 12)
    pace.restart()
    clock.passes(5)
    pace.count(10)
    assert pace.read() == (2.0, 0.0)


def test_what_an_iteration_waits_for_data_is_logged(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loader takes three seconds of four; the hundred seconds of a checkpoint do not count."""
    trainer = create_trainer(replace(config, accumulate=2, epochs=2, log_every=1, checkpoint_every=1), tmp_path)
    clock = Clock(monkeypatch)
    epoch, task, save = trainer.train_loader.epoch, trainer.task, trainer.save

    class Slow:
        def __getattr__(self, name: str) -> Any:
            return getattr(task, name)

        def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
            clock.passes(1)
            return task(images, labels)

    def slow(number: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        for minibatch in epoch(number, start):
            clock.passes(3)
            yield minibatch

    trainer.train_loader.epoch, trainer.run.task = slow, Slow()  # type: ignore[method-assign]
    trainer.save = lambda: [clock.passes(100), save()][1]  # type: ignore[method-assign]
    trainer.fit()
    records = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    paces = [(r["images_per_s"], r["data_wait"]) for r in records if "loss" in r]
    assert paces == [(64 / 8, 6 / 8)] * 4


# --- the rest --------------------------------------------------------------------------------------------------------


def test_frozen_modules_stay_frozen(config: TrainConfig, tmp_path: Path) -> None:
    trainer = create_trainer(config, tmp_path)
    frozen = next(module for module in trainer.model.modules() if isinstance(module, nn.BatchNorm2d))
    frozen.eval()
    trainer.fit()
    assert [module for module in trainer.model.modules() if not module.training] == [frozen]


@pytest.mark.parametrize(("k", "adversarial"), [(0, False), (32, True)])
def test_standard_training_and_all_adversarial(k: int, adversarial: bool, config: TrainConfig, tmp_path: Path) -> None:
    config = replace(config, epochs=1, attack=AttackConfig(k=k), log_every=5)
    create_trainer(config, tmp_path).fit()
    (record,) = [record for record in log_of(tmp_path) if "loss" in record]
    assert (record["adversarial_accuracy"] is not None) is adversarial
    assert (record["clean_accuracy"] is not None) is not adversarial


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"device": "quantum"}, "device must be auto, cpu, cuda"),
        ({"model": {"name": "resnet"}}, "model: unknown model 'resnet'; accepted: small_cnn"),
        ({"model": {"options": {"depth": 3}}}, "model: small_cnn has no option depth; accepted: width"),
        ({"model": {"options": {"width": "wide"}}}, "model: "),
        ({"attack": {"options": {"steps": 3}}}, "attack.name step_ll has no option attack.options.steps; attack.opt"),
        (
            {"attack": {"training": "trades", "k": 16, "eps": 8, "options": {"stps": 3}}},
            "attack.training trades has no option attack.options.stps (did you mean attack.options.steps?); attack.opt",
        ),
        (
            {"attack": {"training": "fast", "k": 16, "eps": 8, "options": {"noise": 2}}},
            "attack.training fast has no option attack.options.noise",
        ),
        (
            {"attack": {"training": "paired", "k": 16, "options": {"fast": True}}},
            "attack.training paired has no option attack.options.fast",
        ),
        ({"optimizer": {"options": {"beta": 3}}}, "optimizer: rmsprop has no option beta"),
        ({"optimizer": {"options": {"momentum": "x"}}}, "optimizer: "),
        ({"m": 161}, "data: the training set has 160 images, fewer than a batch of 161, and"),
    ],
)
def test_errors_name_the_section(change: dict[str, Any], said: str, config: TrainConfig, tmp_path: Path) -> None:
    for name, value in change.items():
        value = replace(getattr(config, name), **value) if isinstance(value, dict) else value
        config = replace(config, **{name: value})
    with pytest.raises(ValueError) as error:
        create_trainer(config, tmp_path / "run")
    assert str(error.value).startswith(said)
    assert not (tmp_path / "run").exists()


def test_missing_data_is_named(config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    config = replace(config, data=DataConfig(name="fashion_mnist", root=str(tmp_path)))
    with pytest.raises(FileNotFoundError, match="download"):
        create_trainer(config, tmp_path / "run")
