"""The cost of a run in clean epochs: what is predicted, what is counted, and what the network really computes."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fastadv import PixelSpace, TruncatedNormalEps, attacks, models
from fastadv.cli import main
from fastadv.train import AdversarialTask, AttackConfig, TrainConfig, Trainer, create_trainer
from fastadv.train.cost import predict
from fastadv.train.tasks.passes import Passes
from fastadv.utils.module_modes import isolated
from tests.data.pictures import write_data_set
from tests.train.test_phases import config_of

BY_STEP = 2 / 3  # a gradient of an image, in passes of a clean image
# Per epoch of 160 digits in minibatches of 32; an attack's cost by hand.
METHODS: dict[str, tuple[dict[str, Any], float]] = {
    "standard": ({"k": 0}, 1),
    "step_ll": ({"k": 12}, 1 + 12 / 32 * BY_STEP),
    "fgsm, all": ({"name": "fgsm", "k": 32}, 1 + BY_STEP),
    "pgd": ({"name": "pgd", "k": 16, "eps": 8, "options": {"steps": 3}}, 1 + 3 / 2 * BY_STEP),
    "iter_ll, fixed eps": ({"name": "iter_ll", "k": 16, "eps": 8}, 1 + 10 / 2 * BY_STEP),
    "iter_basic, fixed steps": ({"name": "iter_basic", "k": 8, "options": {"steps": 2}}, 1 + 2 / 4 * BY_STEP),
    "mi_fgsm": ({"name": "mi_fgsm", "k": 8, "eps": 8, "options": {"steps": 4}}, 1 + 4 / 4 * BY_STEP),
    "random_sign": ({"name": "random_sign", "k": 16}, 1),
    "start_after": ({"k": 32, "start_after": 4}, 1 + 6 / 10 * BY_STEP),
    "paired, the loss": ({"training": "paired", "name": "fgsm"}, 2),
    "paired, step_rnd": ({"training": "paired", "name": "step_rnd"}, 2 + 1 / 3),
    "paired, start_after": ({"training": "paired", "name": "fgsm", "start_after": 5}, 1 + 15 / 20),
    "free": ({"training": "free", "replays": 3, "eps": 8}, 3),
    "fast": ({"training": "fast", "eps": 8}, 1 + BY_STEP),
    "fast from noise": ({"training": "fast", "eps": 8, "options": {"start": "noise"}}, 1 + BY_STEP),
    "fast with a warm-up": ({"training": "fast", "eps": 8, "eps_warmup": 5}, 1 + BY_STEP),
    # Of each image: the clean prediction, two steps, and both versions forward and backward.
    "trades": ({"training": "trades", "eps": 8, "options": {"steps": 2}}, 2 + 1 / 3 + 2 * BY_STEP),
    "trades, start_after and a warm-up": (
        {"training": "trades", "eps": 8, "start_after": 5, "eps_warmup": 3, "options": {"steps": 2}},
        1 + (1 + 1 / 3 + 2 * BY_STEP) / 2,
    ),
    # Paper's iterations at eps 1.6, 3.2, ..., 8: 2, 4, 6, 8 and 10 in the first five, then 10.
    "iter_ll with a warm-up": ({"name": "iter_ll", "k": 32, "eps": 8, "eps_warmup": 5}, 1 + 8 * BY_STEP),
}


@pytest.fixture
def plain(config: TrainConfig) -> TrainConfig:
    return replace(config, attack=AttackConfig(), epochs=2, label_smoothing=0.0)


def iterate(trainer: Trainer) -> None:
    """All iterations of a run, without tests and checkpoints."""
    for epoch in range(trainer.config.epochs):
        minibatches = trainer.train_loader.epoch(epoch)
        for _ in range(trainer.steps_per_epoch):
            trainer.train_step(islice(minibatches, trainer.config.accumulate))


def watch(model: nn.Module) -> Counter[str]:
    """Count the rows that pass the network, forwards and backwards."""
    rows: Counter[str] = Counter()

    def see(module: nn.Module, inputs: Any, logits: Tensor) -> None:
        rows["forward"] += len(logits)
        if logits.requires_grad:
            logits.register_hook(lambda grad: rows.update(backward=len(grad)))

    model.register_forward_hook(see)
    return rows


# --- weights ---------------------------------------------------------------------------------------------------------


def test_a_clean_image_is_the_unit() -> None:
    assert Passes(forward=1, backward=1).clean_images == 1
    assert Passes(forward=3, backward=3, to_images=6).clean_images == 5
    attacked = Passes(forward=2, to_images=2)
    assert attacked.plus(Passes(forward=1, backward=1)).times(3) == Passes(forward=9, backward=3, to_images=6)


# --- a run -----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("few_digits")
@pytest.mark.parametrize("name", METHODS)
def test_prediction_count_and_passes_agree(name: str, plain: TrainConfig, tmp_path: Path) -> None:
    attack, per_epoch = METHODS[name]
    trainer = create_trainer(replace(plain, attack=AttackConfig(**attack)), tmp_path)
    rows, made = watch(trainer.model), Passes()
    take = trainer.task.take_passes

    def taken() -> Passes:
        nonlocal made
        passes = take()
        made = made.plus(passes)
        return passes

    trainer.task.take_passes = taken  # type: ignore[method-assign]
    [predicted] = predict(trainer.run)
    iterate(trainer)
    assert predicted == pytest.approx(2 * per_epoch, rel=1e-9)
    assert trainer.run.cost == pytest.approx(predicted, rel=1e-9)
    assert rows == {"forward": made.forward, "backward": made.backward + made.to_images}


@pytest.mark.parametrize(
    ("attack", "options", "gradients", "queries"),
    [
        ("square", {"queries": 5}, 0, 1 + 5),
        ("apgd_ce", {"steps": 3}, 3, 2),  # forward passes at the clean image, and after the last step
        ("apgd_t", {"steps": 3, "target_classes": 2, "eot": 2}, 2 * 6, 2 * (1 + 2)),
        ("fab_t", {"steps": 3, "target_classes": 2}, 6, 1 + 6),
        # apgd_ce, apgd_t and fab_t with 9 targets each, and square, between five looks
        ("autoattack", {"steps": 2, "queries": 3}, 2 + 18 + 18, 2 + 10 + 19 + 4 + 5),
        ("pgd", {"steps": 3}, 3, 0),
    ],
)
@pytest.mark.filterwarnings("ignore:.*averages the same gradient")
def test_passes_without_a_gradient(attack: str, options: dict[str, Any], gradients: int, queries: int) -> None:
    """As the batch's statistics mix the images, none leaves before all are fooled."""
    torch.manual_seed(0)
    model = models.create("small_cnn", num_classes=10, in_channels=1, width=0.25)
    images, space = torch.rand(8, 1, 8, 8), PixelSpace.unit()
    with torch.no_grad(), isolated(model, bn="batch"):
        labels = model(images).argmax(dim=1)
    task = AdversarialTask(
        model, attack=attack, k=8, eps=1, space=space, seed=0, attack_options={"bn": "batch", **options}
    )
    expected = Passes(forward=8 * (1 + gradients + queries), backward=8, to_images=8 * gradients)
    assert task.expected_passes(8, 0) == expected
    rows = watch(model)
    task(images, labels)
    assert task.take_passes() == expected
    assert rows["forward"] == expected.forward


@pytest.mark.usefixtures("few_digits")
@pytest.mark.parametrize("options", [("square", {"queries": 5}), ("autoattack", {"steps": 1, "queries": 3})], ids=str)
def test_images_that_are_fooled_cost_no_more(
    options: tuple[str, dict[str, Any]], plain: TrainConfig, tmp_path: Path
) -> None:
    """What is counted is what the network computed; what is predicted is the most."""
    name, own = options
    attack = AttackConfig(name=name, k=32, eps=16, options=own)
    trainer = create_trainer(replace(plain, attack=attack, epochs=1), tmp_path)
    rows = watch(trainer.model)
    iterate(trainer)
    images = trainer.steps_per_epoch * 32
    generation = sum(rows.values()) - 2 * images  # in forward passes
    assert trainer.run.cost == pytest.approx(1 + generation / 3 / images)
    assert 1 < trainer.run.cost < sum(predict(trainer.run))


@pytest.mark.usefixtures("few_digits")
@pytest.mark.parametrize(
    ("attack", "per_epoch"), [({"k": 12}, 1.25), ({"training": "free", "replays": 2, "eps": 8}, 2)]
)
def test_accumulated_minibatches(attack: dict[str, Any], per_epoch: float, plain: TrainConfig, tmp_path: Path) -> None:
    """An epoch is that of the images that are shown: four of the five minibatches."""
    trainer = create_trainer(replace(plain, attack=AttackConfig(**attack), accumulate=2), tmp_path)
    iterate(trainer)
    assert trainer.run.cost == pytest.approx(2 * per_epoch) == sum(predict(trainer.run))


@pytest.mark.parametrize("bn", ["eval", "batch"])
@pytest.mark.parametrize("name", ["iter_ll", "iter_basic"])
def test_drawn_sizes_are_predicted_to_2_percent(name: str, bn: str, plain: TrainConfig, tmp_path: Path) -> None:
    """By running statistics, examples that are done leave the batch; by the batch's, all stay to the end."""
    attack = AttackConfig(name=name, k=32, bn=bn, eps_sigma=4, eps_upper=8)  # type: ignore[arg-type]
    trainer = create_trainer(replace(plain, attack=attack, epochs=1), tmp_path)
    rows = watch(trainer.model)
    iterate(trainer)
    assert trainer.run.cost == pytest.approx(sum(predict(trainer.run)), rel=0.02)
    images = trainer.steps_per_epoch * 32
    assert trainer.run.cost == pytest.approx(1 + BY_STEP * (rows["forward"] - images) / images)


def test_the_expected_number_of_steps_by_sampling() -> None:
    sizes, model = TruncatedNormalEps(sigma=8, upper=16), models.create("small_cnn", num_classes=10, in_channels=1)
    drawn = sizes.sample(32 * 20_000, seed=0).double()  # [N]
    steps = torch.minimum(drawn + 4, 1.25 * drawn).to(torch.int64).clamp(min=1).double()  # [N], section 2.2
    leaving = attacks.create("iter_ll", model)
    assert leaving.expected_gradients(32, sizes) == pytest.approx(float(steps.mean()), rel=0.003)
    staying = attacks.create("iter_ll", model, bn="batch")
    of_the_last = steps.view(-1, 32).amax(dim=1).mean()
    assert staying.expected_gradients(32, sizes) == pytest.approx(float(of_the_last), rel=0.003)
    assert leaving.expected_gradients(32, 8.0) == staying.expected_gradients(32, 8.0) == 10
    assert attacks.create("random_sign", model).expected_gradients(32, sizes) == 0


def test_quantiles_by_hand() -> None:
    quantiles = TruncatedNormalEps(sigma=1, upper=2).quantiles(2)  # P(|Z| <= q) = P(|Z| <= 2) * (1/4, 3/4)
    assert quantiles.tolist() == pytest.approx([0.304154, 1.070330], abs=2e-3)
    drawn = TruncatedNormalEps(sigma=8, upper=16).sample(100_000, seed=1).double().sort().values
    assert TruncatedNormalEps(sigma=8, upper=16).quantiles(100_000) == pytest.approx(drawn, abs=0.2)


# --- phases ----------------------------------------------------------------------------------------------------------


def test_images_count_by_their_pixels(tmp_path: Path) -> None:
    write_data_set(tmp_path / "images", per_class=8, classes=3)
    phases = [{"epochs": 2, "data": {"size": 10}, "attack": {"k": 0}}, {"epochs": 1, "m": 8}]
    config = config_of(tmp_path / "images", AttackConfig(k=3), phases)
    trainer = create_trainer(config, tmp_path / "run")
    expected = [2 / 4, 1 + 3 / 8 * BY_STEP]
    assert predict(trainer.run) == pytest.approx(expected)
    trainer.fit()
    assert trainer.run.cost == pytest.approx(sum(expected))
    costs = [json.loads(line)["cost"] for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert costs == sorted(costs) and costs[-1] == trainer.run.cost
    assert create_trainer(config, tmp_path / "run", resume=True).run.cost == trainer.run.cost


# --- the command -----------------------------------------------------------------------------------------------------


def test_the_command_predicts_and_reports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = ["--recipe", "digits_step_ll", "--model.options.width", "0.25", "--device", "cpu", "--out", str(tmp_path)]
    phases = ["--phases", "[{epochs: 1, attack: {k: 0}}, {epochs: 2, precision: bfloat16}]"]
    assert main(["train", *small, *phases, "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "predicted cost: 3.67 clean epochs" and not list(tmp_path.iterdir())
    assert [line.split()[-1] for line in lines[1:3]] == ["1.00", "2.67"] and lines[3:-1] == ["sentinel: 0 checks"]
    assert lines[1].split()[4:6] == ["none", "none"]  # no attack, and no eps
    assert "step_ll, k = 16  up to 64" in lines[2] and "bfloat16" in lines[2]
    assert main(["train", *small, *phases]) == 0
    said = capsys.readouterr().err.splitlines()[-1]
    assert said == "cost: 3.67 clean epochs; predicted for the whole run: 3.67"
    last = json.loads((tmp_path / "log.jsonl").read_text().splitlines()[-1])
    assert last["epoch"] == 3 and last["cost"] == pytest.approx(3 + 2 / 3)


def test_a_dry_run_refuses_what_a_run_would(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--out", str(tmp_path), "--dry-run", "--phases", "[{epochs: 1, m: 2000}]"]) == 2
    assert "phases[0]" in capsys.readouterr().err


def test_a_dry_run_shows_what_is_not_of_a_phase(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = ["--recipe", "digits_step_ll", "--model.options.width", "0.25", "--device", "cpu", "--epochs", "2"]
    assert main(["train", *small, "--attack.k", "0", "--out", str(tmp_path / "other")]) == 0
    capsys.readouterr()
    options = ["--attack.start_after", "7", "--attack.eps_warmup", "11", "--sentinel.every", "10"]
    given = [*options, "--attack.sources", str(tmp_path / "other")]
    assert main(["train", *small, *given, "--out", str(tmp_path / "run"), "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2:-1] == [
        "start_after: 7 iterations on clean images first",
        "eps_warmup: from then on eps grows from 0 over 11 iterations",
        f"sources: examples are made on the network or on {tmp_path / 'other'}",
        "sentinel: 7 checks",  # of 79 iterations after the first 7
    ]
    assert main(["train", *small, "--attack.eps_warmup", "9", "--out", str(tmp_path / "run"), "--dry-run"]) == 0
    assert "eps_warmup: from the first iteration on eps grows from 0 over 9 iterations" in capsys.readouterr().out
