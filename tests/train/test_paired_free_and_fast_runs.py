"""Runs of paired, free and fast training and TRADES: what is built; an interrupted run continues as if it were not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from fastadv import TruncatedNormalEps, attacks
from fastadv.data import BadImageWarning
from fastadv.train import (
    AdversarialTask,
    AttackConfig,
    FreeTask,
    PairedTask,
    Replayed,
    TradesTask,
    TrainConfig,
    Trainer,
    create_trainer,
)
from tests.data.pictures import write_data_set
from tests.train import runs
from tests.train.group import succeeded, together
from tests.train.test_images_in_files import BAD, run_config
from tests.train.test_trainer import Killed, assert_same_run, at_step, kill, log_of, same

FREE = AttackConfig(training="free", replays=3, eps=32.0, options={"alpha": 24.0})
FAST = AttackConfig(training="fast", eps=32.0, start_after=4)
TRADES = AttackConfig(training="trades", eps=32.0, beta=3.0, start_after=4, options={"steps": 2})
PAIRED = AttackConfig(training="paired", name="step_rnd", eps_sigma=16.0, eps_upper=32.0, start_after=4)
PAIRED_FGSM = replace(PAIRED, name="fgsm", label_smoothing=0.1)  # the training loss itself


@pytest.fixture
def free_config(config: TrainConfig) -> TrainConfig:
    """An epoch has fifteen iterations: five minibatches, three times each."""
    return replace(config, attack=FREE, epochs=1)


# --- construction ----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("few_digits")
def test_free(free_config: TrainConfig, tmp_path: Path) -> None:
    trainer = create_trainer(replace(free_config, accumulate=2), tmp_path)
    task, loader = trainer.task, trainer.train_loader
    assert isinstance(task, FreeTask) and isinstance(loader, Replayed)
    assert (task.eps, task.alpha, task.accumulate, task.label_smoothing) == (32, 24, 2, 0.1)
    assert (loader.replays, loader.together, len(loader)) == (3, 2, 12)
    assert trainer.steps_per_epoch == trainer.total_steps == 6
    trainer.fit()
    [end] = [record for record in log_of(tmp_path) if "mean_loss" in record]
    assert end["mean_clean_accuracy"] is None and 0 < end["mean_adversarial_accuracy"] < 1


@pytest.mark.usefixtures("few_digits")
def test_fast(config: TrainConfig, tmp_path: Path) -> None:
    fast = replace(FAST, bn="batch", options={"fold_bn": False})
    task = create_trainer(replace(config, attack=fast, accumulate=2), tmp_path / "run").task
    assert isinstance(task, AdversarialTask) and isinstance(task.attack, attacks.PGD)
    assert (task.attack.eps, task.attack.alpha, task.attack.steps, task.attack.bn) == (32, 40, 1, "batch")
    assert task.k >= config.m and task.start_after == 8
    longer = replace(config, attack=replace(FAST, options={"alpha": 7.0}))
    assert create_trainer(longer, tmp_path / "longer").task.attack.alpha == 7  # type: ignore[attr-defined]
    noisy = replace(config, attack=replace(FAST, options={"start": "noise", "noise": 1.0}))
    attack = create_trainer(noisy, tmp_path / "noisy").task.attack  # type: ignore[attr-defined]
    assert isinstance(attack, attacks.NFGSM) and (attack.noise, attack.alpha) == (1, None)


@pytest.mark.usefixtures("few_digits")
def test_trades(config: TrainConfig, tmp_path: Path) -> None:
    attack = replace(TRADES, start_after=1, bn="batch", options={"alpha": 7.0, "noise": 2.0})
    trainer = create_trainer(replace(config, attack=attack, epochs=1, accumulate=2), tmp_path)
    task = trainer.task
    assert isinstance(task, TradesTask)
    assert (task.beta, task.start_after, task.label_smoothing, task.attack.bn) == (3, 2, 0.1, "batch")
    assert (task.attack.eps, task.attack.alpha, task.attack.steps, task.attack.noise) == (32, 7, 10, 2)
    trainer.fit()
    [end] = [record for record in log_of(tmp_path) if "mean_loss" in record]
    assert end["mean_clean_accuracy"] < 1 and end["mean_adversarial_accuracy"] < 1


@pytest.mark.usefixtures("few_digits")
def test_paired(config: TrainConfig, tmp_path: Path) -> None:
    """An iteration has m / 2 images in two versions each, and an epoch twice the iterations."""
    attack = replace(PAIRED, name="fgsm", lambda_=0.5, running_statistics="split", start_after=2)
    trainer = create_trainer(replace(config, attack=attack, epochs=1, accumulate=2), tmp_path)
    task = trainer.task
    assert isinstance(task, PairedTask) and isinstance(task.attack, attacks.FGSM)
    assert (task.lambda_, task.bn, task.start_after, task.label_smoothing) == (0.5, "split", 4, 0.1)
    assert task.attack.eps == TruncatedNormalEps(sigma=16.0, upper=32.0)
    assert trainer.steps_per_epoch == 160 // (config.m // 2) // 2
    trainer.fit()
    [end] = [record for record in log_of(tmp_path) if "mean_loss" in record]
    assert 0 < end["mean_adversarial_accuracy"] < end["mean_clean_accuracy"] < 1


@pytest.mark.usefixtures("few_digits")
@pytest.mark.parametrize("name", ["iter_basic", "pgd", "random_sign", "mi_fgsm"])
def test_paired_needs_one_step(name: str, config: TrainConfig, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"attack: attack must be a one-step method.*got {name}"):
        create_trainer(replace(config, attack=replace(PAIRED, name=name)), tmp_path)


def test_a_bad_file_ends_a_run_that_replays(tmp_path: Path) -> None:
    """The loader that reads the file is inside the trainer's loader."""
    write_data_set(tmp_path / "images", per_class=8, classes=3)
    (tmp_path / "images" / BAD).write_bytes(b"not an image")
    usual = run_config(tmp_path / "images", loader="torchvision", on_bad_image="stop")
    trainer = create_trainer(replace(usual, attack=FREE), tmp_path / "run")
    with pytest.warns(BadImageWarning, match=f"{BAD} cannot be used"):
        trainer.fit()
    assert trainer.stopped_because is not None and not trainer.finished


# --- resumption ------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("few_digits")
@pytest.mark.parametrize(
    ("attack", "accumulate", "interrupt"),
    [
        pytest.param(FREE, 1, lambda trainer: at_step(trainer, 8, kill), id="free, killed between two replays"),
        pytest.param(FREE, 1, lambda trainer: at_step(trainer, 7, trainer.request_stop), id="free, stopped there"),
        pytest.param(FREE, 1, lambda trainer: at_step(trainer, 9, trainer.request_stop), id="free, after the last one"),
        pytest.param(FREE, 2, lambda trainer: at_step(trainer, 5, trainer.request_stop), id="free, accumulating"),
        pytest.param(FAST, 1, lambda trainer: at_step(trainer, 7, trainer.request_stop), id="fast"),
        pytest.param(TRADES, 1, lambda trainer: at_step(trainer, 7, trainer.request_stop), id="trades"),
        pytest.param(PAIRED, 1, lambda trainer: at_step(trainer, 7, kill), id="paired, killed"),
        pytest.param(PAIRED, 2, lambda trainer: at_step(trainer, 3, trainer.request_stop), id="paired, accumulating"),
    ],
)
def test_resumed_run_is_the_uninterrupted_one(
    attack: AttackConfig, accumulate: int, interrupt: Callable[[Trainer], None], config: TrainConfig, tmp_path: Path
) -> None:
    epochs = 2 if accumulate > 1 or attack in (FAST, TRADES) else 1
    config = replace(config, attack=attack, accumulate=accumulate, epochs=epochs)
    create_trainer(config, tmp_path / "whole").fit()
    trainer = create_trainer(config, tmp_path / "interrupted")
    interrupt(trainer)
    with suppress(Killed):
        trainer.fit()
    assert not trainer.finished
    resumed = create_trainer(config, tmp_path / "interrupted", resume=True)
    assert resumed.step > 0
    resumed.fit()
    assert resumed.finished
    assert_same_run(tmp_path / "whole", tmp_path / "interrupted")


@pytest.mark.parametrize(("precision", "compile"), [("bfloat16", False), ("float32", True)])
@pytest.mark.parametrize("attack", [FREE, PAIRED_FGSM], ids=["free", "paired"])
@pytest.mark.usefixtures("few_digits")
def test_with_other_options(
    attack: AttackConfig,
    precision: Any,
    compile: bool,
    free_config: TrainConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole_compile = torch.compile
    monkeypatch.setattr(torch, "compile", lambda model: whole_compile(model, backend="eager"))
    config = replace(free_config, attack=attack, epochs=2)
    create_trainer(config, tmp_path / "usual").fit()
    create_trainer(replace(config, precision=precision, compile=compile), tmp_path / "other").fit()
    usual, other = ([r["mean_loss"] for r in log_of(tmp_path / run) if "mean_loss" in r] for run in ("usual", "other"))
    assert other == pytest.approx(usual, rel=1e-6 if compile else 0.05)


# --- several processes -----------------------------------------------------------------------------------------------


def test_resumed_run_of_two_processes(free_config: TrainConfig, tmp_path: Path) -> None:
    """Each has its own perturbations, and restores them."""
    config = replace(free_config, m=16)
    whole = succeeded(together(2, runs.train, config, tmp_path / "whole"))
    succeeded(together(2, runs.train, config, tmp_path / "parts", False, 6, 0))
    resumed = succeeded(together(2, runs.train, config, tmp_path / "parts", True))
    assert [result["started_at"] for result in resumed] == [7, 7] and resumed[0]["step"] == 15
    for result in resumed:
        assert same(result["weights"], whole[0]["weights"])


@pytest.mark.parametrize("attack", [FREE, PAIRED, TRADES], ids=["free", "paired", "trades"])
def test_a_run_of_two_is_that_of_one_that_accumulates(
    attack: AttackConfig, free_config: TrainConfig, tmp_path: Path
) -> None:
    model = replace(free_config.model, options={"width": 0.25, "dropout": 0.0})
    config = replace(free_config, m=16, model=model, attack=attack)
    two = succeeded(together(2, runs.train, config, tmp_path / "two"))
    [one] = succeeded(together(1, runs.train, replace(config, accumulate=2), tmp_path / "one"))
    assert two[0]["step"] == one["step"] == (10 if attack is PAIRED else 15 if attack is FREE else 5)
    losses = [[record["loss"] for record in log_of(tmp_path / run) if "loss" in record] for run in ("one", "two")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


@pytest.mark.parametrize("attack", [PAIRED, TRADES], ids=["paired", "trades"])
def test_gradients_of_a_pair_travel_once(attack: AttackConfig, config: TrainConfig, tmp_path: Path) -> None:
    config = replace(config, m=16, attack=replace(attack, start_after=0))
    for seen in succeeded(together(2, runs.count_of_iteration, config, tmp_path)):
        assert seen["step"] == Counter(
            {("gloo:all_reduce", seen["parameters"]): 1, ("gloo:all_reduce", runs.METRICS): 1}
        )


def test_free_continues_with_another_number_of_processes(free_config: TrainConfig, tmp_path: Path) -> None:
    config = replace(free_config, m=16)
    succeeded(together(2, runs.train, config, tmp_path, False, 6, 0))
    [alone] = succeeded(together(1, runs.train, config, tmp_path, True))
    assert (alone["started_at"], alone["step"], alone["accumulate"]) == (7, 15, 2)
    [said] = alone["warned"]
    assert "running statistics (in free training also from its perturbations)" in said


def test_what_free_training_sends(free_config: TrainConfig, tmp_path: Path) -> None:
    """The gradients and the metrics, like training on clean images."""
    for seen in succeeded(together(2, runs.count_of_iteration, replace(free_config, m=16), tmp_path)):
        assert seen["step"] == Counter(
            {("gloo:all_reduce", seen["parameters"]): 1, ("gloo:all_reduce", runs.METRICS): 1}
        )
