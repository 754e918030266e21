"""Phases of a run: what they change, and that a run goes over their borders as if it had none."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from fastadv import PixelSpace, TruncatedNormalEps, models
from fastadv.train import (
    AdversarialTask,
    AttackConfig,
    ModelConfig,
    PairedTask,
    ScheduleConfig,
    TrainConfig,
    Trainer,
    create_trainer,
    fast_task,
)
from fastadv.train.config_errors import ConfigError
from fastadv.train.config_parsing import dump_config, parse_config, read_recipe
from fastadv.train.cost import predict
from fastadv.train.optim import create_schedule
from fastadv.train.phases import Timeline
from fastadv.train.yaml_text import read_yaml
from tests.data.pictures import write_data_set
from tests.train.test_images_in_files import run_config
from tests.train.test_trainer import Killed, assert_same_run, at_step, kill, log_of

FREE = AttackConfig(training="free", replays=2, eps=16.0)
FAST = AttackConfig(training="fast", eps=16.0, eps_warmup=5)
PAIRED = AttackConfig(training="paired", name="step_rnd", eps_sigma=16.0, eps_upper=32.0, eps_warmup=5)
DRAWN = AttackConfig(k=3, start_after=2, eps_warmup=5)
SIZES: list[dict[str, Any]] = [
    {"epochs": 1, "data": {"size": 16}},
    {"epochs": 2, "data": {"size": 20}, "optimizer": {"lr": 0.005}},
]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("phases") / "images"
    write_data_set(root, per_class=8, classes=3)
    return root


def config_of(root: Path, attack: AttackConfig = DRAWN, phases: list[dict[str, Any]] = SIZES) -> TrainConfig:
    """24 images, four iterations per epoch; averages, dropout, momentum, a schedule, each iteration logged."""
    base = run_config(root, loader="torchvision")
    return replace(
        base,
        data=replace(base.data, size=20, workers=0),
        attack=attack,
        schedule=ScheduleConfig(name="cosine", warmup=3),
        ema_decay=0.9,
        epochs=sum(phase["epochs"] for phase in phases),
        phases=phases,
        log_every=1,
    )


# --- the configuration -----------------------------------------------------------------------------------------------


def test_a_phase_changes_what_it_names() -> None:
    phases = [
        {"epochs": 2, "data": {"size": 48}, "attack": {"eps": 4, "options": {"steps": 2}}, "precision": "bfloat16"},
        {"epochs": 3, "optimizer": {"lr": 0.5}, "m": 64},
        {"epochs": 1, "data": {"size": 64}, "attack": {"name": "iter_ll", "k": 1}},
    ]
    whole = {"data": {"size": 96}, "attack": {"name": "pgd", "options": {"alpha": 2.0, "steps": 5}}, "phases": phases}
    config = parse_config(whole)
    first, second, third = config.in_phases()
    assert config.epochs == 6 and [phase.epochs for phase in config.in_phases()] == [2, 3, 1]
    assert (first.data.size, first.attack.eps, first.precision) == (48, 4, "bfloat16")
    assert first.attack.options == {"alpha": 2.0, "steps": 2}
    assert (second.data.size, second.optimizer.lr, second.m, second.attack.eps) == (96, 0.5, 64, None)
    assert (third.data.size, third.attack.name, third.attack.k, third.m) == (64, "iter_ll", 1, 32)
    assert second.attack.options == third.attack.options == {"alpha": 2.0, "steps": 5}
    assert all(phase.phases == [] for phase in (first, second, third))
    assert parse_config(read_yaml(dump_config(config))) == config


def test_phases_on_the_command_line() -> None:
    config = parse_config({"phases": [{"epochs": 3, "attack": {"k": 1}}]}, ["--phases", "[{epochs: 1}, {epochs: 4}]"])
    assert [phase.epochs for phase in config.in_phases()] == [1, 4] and config.phase(0).attack.k == 16
    of_recipe = parse_config({"epochs": 7}, ["--phases", "[{epochs: 1}, {epochs: 4}]"])
    assert of_recipe.epochs == 5
    without = parse_config({"phases": [{"epochs": 3}]}, ["--phases", "[]"])
    assert without.in_phases() == [without] and without.epochs == 10


@pytest.mark.parametrize(
    ("phases", "message"),
    [
        ([{}], r"phases\[0\] must map fields to values"),
        ([{"epochs": 1}, {"data": {"size": 20}}], r"phases\[1\] needs epochs"),
        ([{"epochs": 1}, {"epochs": 0}], r"phases\[1\]\.epochs must be an integer of at least 1, got 0"),
        ([{"epochs": 1, "data": {}}], r"phases\[0\]\.data must map fields to values, got {}"),
        ([{"epochs": 1, "data": {"size": "big"}}], r"phases\[0\]\.data\.size must be an integer"),
        ([{"epochs": 1, "data": {"siez": 3}}], r"phases\[0\]\.data\.siez is not a .*did you mean data\.size\?"),
        ([{"epochs": 1, "lr": 0.1}], r"phases\[0\]\.lr is not a field .*did you mean optimizer\.lr\?"),
        ([{"epochs": 1, "attack.eps": 4}], r"phases\[0\]\.attack\.eps: .* nested here: write attack: {eps: \.\.\.}"),
        ([{"epochs": 1, "model": {"name": "x"}}], r"phases\[0\]\.model is not a field that phases change"),
        ([{"epochs": 1, "attack": {"options": 3}}], r"phases\[0\]\.attack\.options must map options to values, got 3"),
        ([{"epochs": 1, "attack": {"k": 99}}], r"phases\[0\]\.attack\.k must be at most"),
        ([{"epochs": 1, "m": 8}], r"phases\[0\]: attack\.k must be at most the minibatch size m = 8, got 16"),
        ([{"epochs": 1, "attack": {"eps": 8, "eps_upper": 9}}], r"phases\[0\]\.attack\.eps_upper has no effect with"),
        ([{"epochs": 1, "data": {"size": 20}}], r"data\.size is 299, and those of the phases are 20"),
        ([{"epochs": 1}, 3], r"phases must be a list of phases, such as|phases\[1\] must map"),
    ],
)
def test_a_mistake_in_a_phase_is_a_line_that_names_it(phases: list[Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        parse_config({"phases": phases})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--epochs", "3"], "epochs is 3, and those of the phases add up to 2: leave epochs out"),
        (["--epochs=10"], "epochs is 10, and those of the phases add up to 2"),
        (["--optimizer.lr", "0.2"], "optimizer.lr 0.2 has no effect, because each phase names its own"),
        (["--phases.0.epochs", "3"], "--phases.0.epochs is no option: phases are given as a whole, such as --phases"),
        (["--phases", "3"], "phases must be a list of phases, such as"),
    ],
)
def test_options_that_contradict_the_phases(arguments: list[str], message: str) -> None:
    phases = [{"epochs": 1, "optimizer": {"lr": 0.1}}, {"epochs": 1, "optimizer": {"lr": 0.01}}]
    with pytest.raises(ConfigError) as caught:
        parse_config({"phases": phases}, arguments)
    assert message in str(caught.value)


def test_a_data_set_without_sizes_refuses_one_in_a_phase(config: TrainConfig, tmp_path: Path) -> None:
    phases = [{"epochs": 1, "data": {"size": 8}}, {"epochs": 2}]
    with pytest.raises(ConfigError, match=r"phases\[0\]: data\.name digits does not use data\.size"):
        create_trainer(replace(config, phases=phases), tmp_path)


def test_images_that_the_network_does_not_take_are_found_before_the_first_iteration(root: Path, tmp_path: Path) -> None:
    phases = [{"epochs": 1, "data": {"size": 32}}, {"epochs": 2}]
    vision_transformer = ModelConfig(name="timm/test_vit", options={"img_size": 32})
    config = replace(config_of(root), phases=[])
    config = replace(config, model=vision_transformer, phases=phases)
    with pytest.raises(ValueError, match=r"phases\[1\]: timm/test_vit: .*choose another data\.size"):
        create_trainer(config, tmp_path / "run")


def test_sources_that_do_not_take_the_images_of_a_phase_are_found_before_the_first_iteration(
    root: Path, tmp_path: Path
) -> None:
    plain = replace(config_of(root), phases=[])
    of_16 = replace(plain.data, size=16)
    vision_transformer = ModelConfig(name="timm/test_vit", options={"img_size": 16})
    create_trainer(replace(plain, data=of_16, model=vision_transformer), tmp_path / "vit").save()
    ensemble = replace(DRAWN, sources=[str(tmp_path / "vit")])
    create_trainer(replace(plain, data=of_16, attack=ensemble), tmp_path / "of 16")
    with pytest.raises(ValueError, match=r"attack\.sources: .*vit: images \[C, H, W\] = \[3, 20, 20\] do not fit"):
        create_trainer(config_of(root, ensemble), tmp_path / "run")


# --- the timeline ----------------------------------------------------------------------------------------------------


def test_timeline_by_hand() -> None:
    timeline = Timeline([2, 1, 3], [5, 2, 4])
    assert (timeline.total_steps, timeline.total_epochs) == (24, 6)
    of_step = {0: (0, 0, 0), 4: (0, 0, 4), 5: (0, 1, 0), 9: (0, 1, 4), 10: (1, 2, 0), 12: (2, 3, 0), 23: (2, 5, 3)}
    for step, expected in of_step.items():
        assert timeline.position(step)[:3] == expected
    assert [timeline.position(step).steps_per_epoch for step in (9, 10, 12)] == [5, 2, 4]
    assert [timeline.epochs_done(step) for step in (0, 4, 5, 10, 11, 12, 24)] == [0, 0, 1, 2, 2, 3, 6]
    assert [timeline.position_of_last(step).phase for step in (0, 1, 10, 11, 12, 13, 24)] == [0, 0, 0, 1, 1, 2, 2]


def test_learning_rates_follow_the_epochs_and_each_phase_has_its_own() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=8.0)
    halved = ScheduleConfig(name="exponential", decay=0.5, decay_every=1.0)
    schedule = create_schedule(optimizer, halved, Timeline([1, 2], [2, 3]), rates=[1.0, 0.5])
    rates = []
    for _ in range(8):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates == [8, 8, 2, 2, 2, 1, 1, 1]


# --- a run -----------------------------------------------------------------------------------------------------------


def test_each_phase_trains_and_tests_as_it_says(root: Path, tmp_path: Path) -> None:
    phases = [
        {"epochs": 1, "data": {"size": 16}, "m": 12},
        {"epochs": 1, "attack": {"eps": 3}, "precision": "bfloat16"},
    ]
    trainer = create_trainer(config_of(root, AttackConfig(k=3), phases), tmp_path / "run")
    assert trainer.total_steps == 2 + 4
    seen: list[tuple[Any, ...]] = []

    def see(module: nn.Module, inputs: tuple[torch.Tensor]) -> None:
        attack = trainer.task.attack  # type: ignore[union-attr]
        seen.append((module.training, *inputs[0].shape[::2], torch.is_autocast_enabled("cpu"), attack.eps))

    trainer.model.register_forward_pre_hook(see)
    trainer.fit()
    training = [one[1:] for one in seen if one[0]]
    assert training == 2 * [(12, 16, False, TruncatedNormalEps())] + 4 * [(6, 20, True, 3)]
    generated = [one[1:] for one in seen if one[1] == 3]
    assert set(generated) == {(3, 16, False, TruncatedNormalEps()), (3, 20, True, 3)}
    tested = [one[2:] for one in seen if not one[0] and one[1] > 3]
    assert {size for size, *_ in tested} == {16, 20} and tested == sorted(tested, key=lambda one: one[0])
    records = [(record["step"], record["epoch"]) for record in log_of(tmp_path / "run") if "loss" in record]
    assert records == [(1, 1), (2, 1), (3, 2), (4, 2), (5, 2), (6, 2)]
    assert [(r["step"], r["epoch"]) for r in log_of(tmp_path / "run") if "mean_loss" in r] == [(2, 1), (6, 2)]


ATTACKS = {"algorithm1": DRAWN, "fast": FAST, "free": FREE, "paired": PAIRED}
INTERRUPTIONS: dict[str, tuple[int, Callable[[Trainer], Any]]] = {
    "stop before": (-1, lambda trainer: trainer.request_stop()),
    "stop at the border": (0, lambda trainer: trainer.request_stop()),
    "kill before the test": (0, lambda trainer: kill()),
    "kill after the border": (1, lambda trainer: kill()),
    "stop after": (2, lambda trainer: trainer.request_stop()),
}


@pytest.fixture(scope="module")
def whole_run(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of an uninterrupted run."""

    @cache
    def run(name: str) -> Path:
        folder = tmp_path_factory.mktemp("whole") / name
        create_trainer(config_of(root, ATTACKS[name]), folder).fit()
        return folder

    return run


@pytest.mark.parametrize(
    ("name", "interruption"),
    [
        *(("algorithm1", interruption) for interruption in INTERRUPTIONS),
        *((name, "stop at the border") for name in ("fast", "free", "paired")),
        ("free", "kill after the border"),
    ],
)
def test_a_run_goes_over_a_border_bit_for_bit(
    name: str, interruption: str, root: Path, whole_run: Callable[[str], Path], tmp_path: Path
) -> None:
    config = config_of(root, ATTACKS[name])
    trainer = create_trainer(config, tmp_path)
    after, interrupt = INTERRUPTIONS[interruption]
    border = trainer.run.timeline.first_step(1)
    at_step(trainer, border + after, lambda: interrupt(trainer))
    with suppress(Killed):
        trainer.fit()
    assert not trainer.finished
    resumed = create_trainer(config, tmp_path, resume=True)
    assert abs(resumed.step - border) <= 2
    resumed.fit()
    assert resumed.finished and resumed.run.phase == 1
    assert_same_run(whole_run(name), tmp_path)


def test_free_training_starts_a_phase_with_perturbations_of_zero(root: Path, tmp_path: Path) -> None:
    trainer = create_trainer(config_of(root, FREE), tmp_path / "run")
    seen: list[Any] = []
    at_step(trainer, 8, lambda: seen.append(trainer.task.state_dict()))
    trainer.fit()
    [before] = seen
    assert before["perturbations"][0].shape[-1] == 16 and before["iteration"] == 8
    after = trainer.task.state_dict()
    assert after["perturbations"][0].shape[-1] == 20 and after["iteration"] == trainer.total_steps
    trainer.run.enter(1)
    assert trainer.task.state_dict()["iteration"] == trainer.total_steps


# --- eps grows -------------------------------------------------------------------------------------------------------


def sizes_in_calls(task: AdversarialTask | PairedTask, calls: int) -> list[tuple[Any, Any]]:
    """The attack's eps and alpha in each call."""
    seen = []
    for _ in range(calls):
        images, labels = torch.rand(4, 1, 8, 8), torch.randint(10, (4,))
        if isinstance(task, PairedTask):
            task.backward(images, labels)
        else:
            task(images, labels)
        seen.append((task.attack.eps, getattr(task.attack, "alpha", None)))
    return seen


@pytest.fixture
def model() -> nn.Module:
    return models.create("small_cnn", num_classes=10, in_channels=1, width=0.25)


def test_eps_grows_linearly_by_hand(model: nn.Module) -> None:
    options: dict[str, Any] = {"space": PixelSpace.unit(), "eps_warmup": 4}
    fixed = AdversarialTask(model, k=2, eps=8.0, start_after=1, **options)
    assert [eps for eps, _ in sizes_in_calls(fixed, 6)] == [8, 2, 4, 6, 8, 8]
    drawn = PairedTask(model, eps=TruncatedNormalEps(sigma=8, upper=16), **options)
    assert [(eps.sigma, eps.upper) for eps, _ in sizes_in_calls(drawn, 5)] == [
        (2, 4),
        (4, 8),
        (6, 12),
        (8, 16),
        (8, 16),
    ]
    fast = fast_task(model, eps=8.0, **options)
    assert sizes_in_calls(fast, 5) == [(2, 2.5), (4, 5), (6, 7.5), (8, 10), (8, 10)]
    several = fast_task(model, eps=8.0, **options)
    several.minibatches_per_iteration = 2
    assert [eps for eps, _ in sizes_in_calls(several, 6)] == [2, 2, 4, 4, 6, 6]


def test_eps_follows_from_the_iteration_alone(model: nn.Module) -> None:
    task = AdversarialTask(model, k=2, eps=8.0, eps_warmup=4, seed=0, space=PixelSpace.unit())
    sizes_in_calls(task, 2)
    later = AdversarialTask(model, k=2, eps=8.0, eps_warmup=4, seed=0, space=PixelSpace.unit())
    later.load_state_dict(task.state_dict())
    assert sizes_in_calls(later, 1) == sizes_in_calls(task, 1) == [(6, None)]


def test_small_sizes_in_the_warm_up_are_no_mistake(model: nn.Module, recwarn: pytest.WarningsRecorder) -> None:
    task = AdversarialTask(model, k=4, eps=4.0, eps_warmup=100, space=PixelSpace.unit())
    images = torch.rand(4, 1, 8, 8)
    before = images.clone()
    task(images, torch.randint(10, (4,)))
    assert 0 < (images - before).abs().max() <= 0.0401 / 255 and not recwarn.list


@pytest.mark.parametrize(
    ("attack", "message"),
    [
        ({"eps_warmup": -1}, "attack.eps_warmup must be an integer of at least 0, got -1"),
        ({"training": "free", "eps": 8, "replays": 2, "eps_warmup": 5}, "attack.eps_warmup has no effect with"),
    ],
)
def test_a_warm_up_that_cannot_be(attack: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_config({"attack": attack})


def test_a_recorded_iteration_does_not_follow_a_warm_up() -> None:
    with pytest.raises(ConfigError, match=r"capture does not go with attack\.eps_warmup"):
        parse_config({"capture": True, "attack": {"eps_warmup": 5}})


# --- recipes ---------------------------------------------------------------------------------------------------------

# Of each recipe with phases: smaller values of fields, a network for them, and the costs of the phases by hand.
SMALLER: dict[str, tuple[dict[str, dict[int, int]], ModelConfig, list[float]]] = {
    "resnet50_fast_phases": (
        {"size": {288: 18, 224: 14, 128: 8}, "m": {32: 4, 56: 6, 128: 8}},
        ModelConfig(options={"width": 0.25}),
        [6 * 64 / 324 * 5 / 3, 6 * 196 / 324 * 5 / 3, 3 * 5 / 3],
    ),
    "vit_two_stages": (
        {"size": {224: 64, 112: 32}, "m": {128: 6}, "k": {128: 6}, "eps_warmup": {1250: 4}},
        ModelConfig(
            name="timm/vit_small_patch16_224",
            options={"dynamic_img_size": True, "img_size": 64, "depth": 1, "embed_dim": 24, "num_heads": 3},
        ),
        [90 / 4 * 5 / 3, 10 * (1 + 3 * 2 / 3)],
    ),
    "imagenette_phases": (
        {"size": {96: 24, 64: 16, 48: 12}, "m": {64: 6}},
        ModelConfig(options={"width": 0.25}),
        [4 / 4 * 5 / 3, 4 / 9 * 5 / 3, 4 * 5 / 3],
    ),
}


def smaller(values: Any, by: dict[str, dict[int, int]]) -> Any:
    """A recipe's values, with those of some fields replaced wherever they are."""
    if isinstance(values, dict):
        return {key: by[key][one] if key in by else smaller(one, by) for key, one in values.items()}
    return [smaller(one, by) for one in values] if isinstance(values, list) else values


@pytest.mark.parametrize("name", SMALLER)
def test_a_recipe_with_phases_builds_and_trains(name: str, root: Path, tmp_path: Path) -> None:
    by, model, costs = SMALLER[name]
    config = parse_config(smaller(read_recipe(name), by))
    local = replace(config.data, root=str(root), loader="torchvision", workers=0)
    config = replace(config, data=local, model=model, device="cpu")
    trainer = create_trainer(config, tmp_path)
    assert predict(trainer.run) == pytest.approx(costs, rel=0.01)
    for phase in range(len(trainer.run.stages)):
        trainer._enter(phase)
        trainer.train_step(trainer.train_loader.epoch(0))
