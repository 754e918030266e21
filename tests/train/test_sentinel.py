"""The sentinel: its rule, its checks, what they cost, and what a run does after an alarm."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn

from fastadv import attacks, models
from fastadv.cli import main
from fastadv.train import AttackConfig, SentinelConfig, TrainConfig, Trainer, checkpoint, create_trainer, trainer
from fastadv.train.collapse import Check, CollapseRule
from fastadv.train.cost import predict
from fastadv.train.sentinel import Sentinel, checks_every
from tests.train import runs
from tests.train.group import succeeded, together
from tests.train.test_trainer import Killed, assert_same_run, at_step, kill, log_of, same

ONE_STEP: dict[str, AttackConfig] = {
    "step_ll": AttackConfig(k=12, start_after=4, eps_sigma=32.0, eps_upper=64.0),
    "fgsm": AttackConfig(name="fgsm", k=32, eps=16),
    "paired": AttackConfig(training="paired", name="fgsm", eps=16),
    "free": AttackConfig(training="free", replays=2, eps=16),
    "fast": AttackConfig(training="fast", eps=16),
}


def watched(config: TrainConfig, **options: Any) -> TrainConfig:
    return replace(config, sentinel=SentinelConfig(**{"every": 2, **options}))


def sentinel_of(trainer: Trainer) -> Sentinel:
    assert isinstance(trainer.run.sentinel, Sentinel)
    return trainer.run.sentinel


# --- the rule --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("robust", "one_step", "collapses"),
    [
        pytest.param([50, 50, 10, 10, 10], [60, 60, 60, 60, 60], [4], id="a collapse, reported once"),
        pytest.param([50, 50, 10, 50, 10, 50], [60] * 6, [], id="every second check"),
        pytest.param([50, 50, 10, 10], [60, 60, 20, 20], [], id="both fall"),
        pytest.param([50, 50, 10, 10], [60, 60, 41, 41], [4], id="one-step accuracy falls by less than half of it"),
        pytest.param([50, 50, 10, 10], [60, 60, 40, 40], [], id="by half of it"),
        pytest.param([20, 40, 20, 20, 20], [60] * 5, [], id="a single high check is not the best"),
        pytest.param([50, 50, 38, 38], [60] * 4, [], id="a fall of 12 of 64, less than 0.2"),
        pytest.param([50, 50, 33, 33], [60] * 4, [4], id="a fall of 17"),
        pytest.param([50, 50, 30, 40], [60] * 4, [4], id="a fall of 15 on average"),
        pytest.param([50, 50, 5, 44], [60] * 4, [], id="one of the two is near the best"),
        pytest.param([50, 50, 10, 10, 50, 50, 10, 10], [60] * 8, [4, 8], id="again after it came back"),
        pytest.param([0, 1, 0, 0, 2, 1], [9, 30, 50, 60, 60, 60], [], id="never robust"),
    ],
)
def test_what_is_a_collapse(robust: list[int], one_step: list[int], collapses: list[int]) -> None:
    rule = CollapseRule(0.2)
    checks = [Check(r / 64, s / 64, 64) for r, s in zip(robust, one_step, strict=True)]
    assert [step for step, check in enumerate(checks, start=1) if rule.add(step, check)] == collapses


def test_fewer_images_have_more_noise() -> None:
    """From 12 to 7 of 16 is less than two standard errors, 2 sqrt((0.1875 + 0.2461) / 16) = 0.33; to 6 is more."""
    for robust, collapses in ((7, False), (6, True)):
        rule = CollapseRule(0.2)
        for step, count in enumerate([12, 12, robust, robust]):
            found = rule.add(step, Check(count / 16, 0.9, 16))
        assert found == collapses


def test_the_last_healthy_check() -> None:
    """The last whose robust accuracy was lower than the best by at most half of ``fall``."""
    rule, healthy = CollapseRule(0.25), []
    for step, robust in enumerate([10, 32, 32, 24, 23, 8, 8, 40], start=1):
        rule.add(step, Check(robust / 64, 0.9, 64))
        healthy.append(rule.healthy)
    assert healthy == [1, 2, 3, 4, 4, 4, 4, 8]


def test_the_rule_continues_from_its_state() -> None:
    series = [Check(share, 0.9, 64) for share in (0.5, 0.6, 0.2, 0.1, 0.1, 0.6)]
    whole = CollapseRule(0.2)
    expected = [whole.add(step, check) for step, check in enumerate(series)]
    for cut in range(len(series)):
        first, second = CollapseRule(0.2), CollapseRule(0.2)
        found = [first.add(step, check) for step, check in enumerate(series[:cut])]
        second.load_state_dict(first.state_dict())
        found += [second.add(step, check) for step, check in enumerate(series[cut:], start=cut)]
        assert found == expected and second.state_dict() == whole.state_dict()


# --- the configuration -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"every": -1}, "sentinel.every must be an integer of at least 0, got -1"),
        ({"every": 2.5}, "sentinel.every must be an integer of at least 0, got 2.5"),
        ({"then": "recovery"}, r"sentinel.then must be one of warn, stop, recover, got 'recovery' \(did you mean"),
        ({"fall": 0}, "sentinel.fall must be a number above 0 and below 1, got 0"),
        ({"fall": 20}, "sentinel.fall must be a number above 0 and below 1, got 20"),
    ],
)
def test_bad_values(values: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said) as error:
        SentinelConfig(**values)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("attack", "reason"),
    [
        (AttackConfig(k=0), "attack.k 0 is training on clean images"),
        (AttackConfig(name="iter_ll"), "attack.name iter_ll takes several steps"),
        (AttackConfig(name="pgd", options={"steps": 2}), "attack.name pgd takes several steps"),
        (AttackConfig(name="random_sign"), "attack.name random_sign is noise"),
        (AttackConfig(name="square"), "attack.name square searches"),
        (AttackConfig(name="fast_grad_l2", eps=300), "attack.name fast_grad_l2 is bounded in L2"),
        (AttackConfig(name="pgd", eps=300, options={"norm": "l2", "steps": 1}), "attack.name pgd is bounded in L2"),
    ],
)
def test_other_training_is_not_watched(attack: AttackConfig, reason: str, few_digits: None, tmp_path: Path) -> None:
    config = TrainConfig(attack=attack)  # the default is for training on one step
    assert create_trainer(config, tmp_path).run.sentinel is None
    TrainConfig(attack=attack, sentinel=SentinelConfig(every=0, then="stop"))
    with pytest.raises(ValueError, match=f"sentinel.every 5, sentinel.then stop: .* and {reason}; leave it out"):
        TrainConfig(attack=attack, sentinel=SentinelConfig(every=5, then="stop"))


@pytest.mark.parametrize(
    ("attack", "named"),
    [
        (ONE_STEP["free"], "attack.training free"),
        (ONE_STEP["paired"], "attack.training paired"),
        (AttackConfig(name="n_fgsm"), "attack.name n_fgsm"),
        (AttackConfig(training="fast", eps=8, options={"start": "noise"}), "attack.options.start noise"),
        (AttackConfig(sources=["runs/other"]), "attack.sources"),
    ],
)
def test_training_that_cannot_go_on_with_n_fgsm(attack: AttackConfig, named: str) -> None:
    with pytest.raises(ValueError, match=f"sentinel.then recover does not go with {named}"):
        TrainConfig(attack=attack, sentinel=SentinelConfig(then="recover"))
    TrainConfig(attack=attack, sentinel=SentinelConfig(then="stop"))


def test_one_step_of_an_iterative_attack_is_watched(few_digits: None, tmp_path: Path) -> None:
    config = TrainConfig(attack=AttackConfig(name="pgd", eps=8, options={"steps": 1}))
    assert create_trainer(config, tmp_path).run.sentinel is not None


# --- what it costs ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("attack", "options", "world_size", "expected"),
    [
        # A check has 64 x (11 gradients x 2 + 2) = 1,536 passes; an iteration 2 (m + k) = 96, 1 % of it 0.96.
        (AttackConfig(), {}, 1, 1600),
        (AttackConfig(), {"accumulate": 5}, 1, 320),
        (AttackConfig(), {}, 2, 800),  # each process has 32 of the images
        (AttackConfig(k=32), {}, 1, 1200),
        (AttackConfig(k=1), {}, 1, 2328),  # 1536 / 0.66 = 2327.3
        (ONE_STEP["fast"], {}, 1, 1200),
        (ONE_STEP["paired"], {}, 1, 2400),
        (ONE_STEP["free"], {"m": 64}, 1, 1200),
        (AttackConfig(), {"sentinel": SentinelConfig(every=7)}, 1, 7),
        (AttackConfig(), {"sentinel": SentinelConfig(every=0)}, 1, 0),
    ],
)
def test_how_often(attack: AttackConfig, options: dict[str, Any], world_size: int, expected: int) -> None:
    assert checks_every(TrainConfig(attack=attack, **options), world_size) == expected


@contextmanager
def counted_passes(trainer: Trainer) -> Iterator[dict[str, int]]:
    """Count the images that go through the model forward, and those that come back."""
    counts = {"forward": 0, "backward": 0}

    def count(module: Any, inputs: tuple[Tensor, ...], logits: Tensor) -> None:
        counts["forward"] += len(logits)
        if logits.requires_grad:
            logits.register_hook(lambda grad: counts.update(backward=counts["backward"] + len(grad)))

    with trainer.model.register_forward_hook(count):
        yield counts


@pytest.mark.usefixtures("few_digits")
def test_checks_add_one_percent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted in a run of 240 iterations and one check, after three on clean images."""
    monkeypatch.setattr(models, "create", lambda *_, **options: nn.Sequential(nn.Flatten(), nn.Linear(64, 10)))
    attack = AttackConfig(name="fgsm", k=80, eps=8, start_after=3)
    trainer = create_trainer(TrainConfig(attack=attack, m=80, accumulate=2, epochs=243, device="cpu"), tmp_path)
    trainer._finish_epoch = lambda: None  # type: ignore[method-assign]
    with counted_passes(trainer) as passes:
        trainer.fit()
    clean, adversarial = 2 * 2 * 80, 2 * 2 * 2 * 80  # of an iteration: forward and backward, of two minibatches
    in_training, in_checks = 3 * clean + 240 * adversarial, 64 * (2 * 11 + 2)
    assert sum(passes.values()) == in_training + in_checks
    assert 0.0095 < in_checks / in_training <= 0.01


# --- a check ---------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("few_digits")
@pytest.mark.parametrize("name", ["step_ll", "free"])
def test_a_check_is_two_attacks_on_the_first_images(name: str, config: TrainConfig, tmp_path: Path) -> None:
    trainer = create_trainer(replace(config, attack=ONE_STEP[name], sentinel=SentinelConfig(every=1)), tmp_path)
    sentinel = sentinel_of(trainer)
    sentinel.keep_images(range(1, 10))
    found = sentinel.check()

    loader = getattr(trainer.train_loader, "loader", trainer.train_loader)
    first, second = (pair for pair, _ in zip(loader.epoch(0), range(2), strict=False))
    images, labels = (torch.cat(both) for both in zip(first, second, strict=True))  # [64, 1, 8, 8], [64]
    assert len(images) == 64
    eps = {"step_ll": 64, "free": 16}[name]  # where sizes are drawn, the largest
    options: dict[str, Any] = {"eps": eps, "space": config.data.pixel_space}
    model = trainer.model.eval()
    shares = []
    for attack in (attacks.PGD(model, steps=10, seed=0, **options), attacks.FGSM(model, **options)):
        # Of 32 images each, as they come.
        adv = torch.cat([attack(images[part], labels[part]) for part in (slice(0, 32), slice(32, 64))])
        shares.append((model(adv).argmax(1) == labels).double().mean().item())
    if name == "free":
        assert found == (*shares, 64)
    assert found.one_step == shares[1] and found.n == 64


class MasksItsGradient(nn.Module):
    """Classifies by z = 0.1 - d, d the mean pixel above 0.5, and has a bump at d = 0 where the gradient points back.

    One step from d = 0 ends at d = -eps, where z is larger; steps that start beside the bump end at d = eps.
    """

    def __init__(self) -> None:
        super().__init__()
        self.width = nn.Parameter(torch.tensor(1e-4))

    def forward(self, images: Tensor) -> Tensor:
        above = images.flatten(1).mean(1) - 0.5  # [N]
        z = 0.1 - above + 2 * self.width * torch.tanh(above / self.width)
        return torch.stack([z, -z], dim=1)


@pytest.mark.usefixtures("few_digits")
def test_a_check_sees_a_masked_gradient(config: TrainConfig, tmp_path: Path) -> None:
    trainer = create_trainer(watched(config), tmp_path)
    trainer.run.model = MasksItsGradient()
    sentinel = sentinel_of(trainer)
    sentinel._kept = [(torch.full((n, 1, 8, 8), 0.5), torch.zeros(n, dtype=torch.int64)) for n in (40, 24)]
    assert sentinel.check() == (0.0, 1.0, 64)


@pytest.mark.usefixtures("few_digits")
@pytest.mark.parametrize(
    ("name", "options"),
    [
        *((name, {}) for name in ONE_STEP),
        *(("step_ll", options) for options in ({"precision": "bfloat16"}, {"ema_decay": 0.9}, {"accumulate": 2})),
        ("fgsm", {"fast": True}),
        ("fgsm", {"capture": True}),  # without a GPU, training runs without it
    ],
)
@pytest.mark.filterwarnings("ignore:training runs without capture")
def test_a_watched_run_is_the_unwatched_one(
    name: str, options: dict[str, Any], config: TrainConfig, tmp_path: Path
) -> None:
    """Bit for bit: weights, optimiser, generators, and what follows them in the log."""
    config = replace(config, attack=ONE_STEP[name], **options)
    states, logs = [], []
    for every in (2, 0):
        run = tmp_path / str(every)
        trainer = create_trainer(watched(config, every=every), run)
        trainer.fit()
        states.append((checkpoint.load_state(checkpoint.resolve(run)), runs.weights(trainer.model)))
        assert states[-1][0].pop("sentinel")["last"][2] == (64 if every else 0)
        del states[-1][0]["cost"]  # which is higher with checks
        logs.append(log_of(run))
    assert same(*states)
    checks = [record for record in logs[0] if "sentinel_robust_accuracy" in record]
    start = config.attack.start_after
    assert [record["step"] for record in checks] == list(range(start + 2, trainer.total_steps + 1, 2))
    assert without_checks(logs[0]) == without_checks(logs[1])
    assert [record["last_robust_accuracy"] for record in logs[0] if "test_accuracy" in record] == [
        next((check["sentinel_robust_accuracy"] for check in reversed(checks) if check["step"] <= record["step"]), None)
        for record in logs[0]
        if "test_accuracy" in record
    ]


def without_checks(log: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The records that a run without a sentinel has as well, without what checks change in them."""
    changed = ("cost", "last_robust_accuracy")
    kept = [record for record in log if "sentinel_robust_accuracy" not in record]
    return [{name: value for name, value in record.items() if name not in changed} for record in kept]


# --- after an alarm --------------------------------------------------------------------------------------------------


@pytest.fixture
def collapse(few_digits: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let checks find that robustness collapses after iteration 8, and not under n_fgsm."""

    def check(self: Sentinel) -> Check:
        robust = 0.5 if self.recovered or self._run.task.state_dict()["iteration"] <= 8 else 0.0
        return Check(robust, 0.75, 64)

    monkeypatch.setattr(Sentinel, "check", check)


TEXT = (
    "robust accuracy has collapsed by iteration 12: of 64 training images at eps 64, 0% are classified correctly after "
    "10 steps (PGD), 50% at best, and 75% after one (FGSM)"
)


def fitted(config: TrainConfig, run: Path, **options: Any) -> tuple[Trainer, list[str]]:
    """Train; also returns the warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer = create_trainer(config, run, **options)
        trainer.fit()
    return trainer, [str(warning.message) for warning in caught]


def checkpoints(run: Path) -> list[int]:
    return sorted(checkpoint.read_meta(path).step for path in (run / "checkpoints").glob("step-*"))


@pytest.mark.usefixtures("collapse")
def test_warn(config: TrainConfig, tmp_path: Path) -> None:
    trainer, said = fitted(watched(config), tmp_path)
    assert (trainer.step, said, checkpoints(tmp_path)) == (15, [TEXT], [10, 12, 15])


@pytest.mark.usefixtures("collapse")
def test_stop(config: TrainConfig, tmp_path: Path) -> None:
    trainer, said = fitted(watched(config, then="stop"), tmp_path)
    assert (trainer.step, said, trainer.stopped_because) == (12, [], TEXT)
    assert checkpoints(tmp_path) == [6, 9, 10, 12]  # 6 is spared: robust accuracy had not fallen at 8
    resumed, said = fitted(watched(config, then="stop"), tmp_path, resume=True)
    assert (resumed.step, said, resumed.stopped_because) == (15, [], None)  # as asked: it was reported already


@pytest.mark.usefixtures("collapse")
def test_at_the_last_iteration_there_is_nothing_to_stop(config: TrainConfig, tmp_path: Path) -> None:
    config = replace(config, attack=replace(config.attack, start_after=0), m=40, epochs=4)
    trainer, said = fitted(watched(config, then="stop", every=4), tmp_path)  # checks at 4, 8, 12 and 16
    assert (trainer.step, trainer.stopped_because) == (16, None)
    assert said == [TEXT.replace("12", "16")]


def by_hand(config: TrainConfig, run: Path, name: str = "n_fgsm") -> Trainer:
    """The run without a sentinel, whose attack is exchanged after iteration 6."""
    trainer = create_trainer(watched(config, every=0), run)

    def exchange() -> None:
        options = {"space": config.data.pixel_space, "eps": config.attack.size, "validate": "first"}
        attack = attacks.create(name, trainer.model, **options)
        attack.stream = trainer.task.attack.stream  # type: ignore[attr-defined]
        trainer.task.attack = attack  # type: ignore[attr-defined]

    at_step(trainer, 6, exchange)
    trainer.fit()
    return trainer


@pytest.mark.usefixtures("collapse")
@pytest.mark.parametrize("name", ["step_ll", "fgsm", "fast"])
def test_recover(name: str, config: TrainConfig, tmp_path: Path) -> None:
    """The run goes back to iteration 6 and goes on with n_fgsm; nothing is left of what it left behind."""
    config = replace(config, attack=replace(ONE_STEP[name], start_after=4), keep=1, ema_decay=0.9)
    trainer, (said,) = fitted(watched(config, then="recover"), tmp_path / "run")
    assert said.endswith("; the run is back at iteration 6 and goes on with n_fgsm")
    assert sentinel_of(trainer).recovered and trainer.step == 15
    expected = by_hand(config, tmp_path / "by hand")
    for mine, other in zip(trainer.run.modules(), expected.run.modules(), strict=True):
        assert same(runs.weights(mine), runs.weights(other))
    assert checkpoints(tmp_path / "run") == [15]
    logs = [without_checks(log_of(tmp_path / folder)) for folder in ("run", "by hand")]
    assert logs[0] == logs[1]
    events = EventAccumulator(str(tmp_path / "run/tensorboard")).Reload()
    assert [(event.step, event.value) for event in events.Scalars("train/sentinel_robust_accuracy")] == [
        (step, 0.5) for step in (6, 8, 10, 12, 14)
    ]


def killed(monkeypatch: pytest.MonkeyPatch, where: str, config: TrainConfig, run: Path) -> None:
    with monkeypatch.context() as patch, pytest.raises(Killed), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer_ = create_trainer(config, run)
        if where == "while it goes back":
            patch.setattr(trainer, "delete_after", lambda run_dir, step: kill())
        elif where == "before it goes back":
            at_step(trainer_, 12, kill)
        else:
            seen: list[int] = []
            at_step(trainer_, 8, lambda: kill() if sentinel_of(trainer_).recovered else seen.append(8))
        trainer_.fit()


@pytest.mark.usefixtures("collapse")
@pytest.mark.parametrize(
    ("where", "left", "warned"),
    [
        ("before it goes back", [6, 9, 10], 1),
        ("while it goes back", [6, 9, 10], 1),
        ("after it went back", [6], 0),
    ],
)
def test_a_run_that_recovers_survives(
    where: str, left: list[int], warned: int, config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = watched(config, then="recover")
    fitted(config, tmp_path / "whole")
    killed(monkeypatch, where, config, tmp_path / "killed")
    assert [step for step in checkpoints(tmp_path / "killed") if step > 5] == left
    resumed, said = fitted(config, tmp_path / "killed", resume=True)
    assert len(said) == warned and sentinel_of(resumed).recovered
    assert_same_run(tmp_path / "whole", tmp_path / "killed")


@pytest.mark.usefixtures("collapse")
def test_the_attack_after_a_recovery_stays(config: TrainConfig, tmp_path: Path) -> None:
    """Also if the run goes on without checks, and if an older checkpoint is loaded."""
    run = watched(config, then="recover")
    whole, _ = fitted(run, tmp_path / "whole")
    stopped = create_trainer(run, tmp_path / "run")
    at_step(stopped, 9, lambda: stopped.request_stop() if sentinel_of(stopped).recovered else None)
    with pytest.warns(UserWarning, match="goes on with n_fgsm"):
        stopped.fit()
    resumed, said = fitted(watched(config, every=0), tmp_path / "run", resume=True)
    assert said == [] and same(runs.weights(resumed.model), runs.weights(whole.model))
    attack = resumed.task.attack  # type: ignore[attr-defined]
    assert attack.name == "n_fgsm" and attack.validate == "first"


@pytest.mark.usefixtures("collapse")
def test_an_earlier_state_brings_back_the_attack(config: TrainConfig, tmp_path: Path) -> None:
    trainer = create_trainer(watched(config, then="recover", every=2), tmp_path)
    before = sentinel_of(trainer).state_dict()
    sentinel_of(trainer).recover()
    sentinel_of(trainer).load_state_dict(before)
    assert trainer.task.attack.name == "step_ll"  # type: ignore[attr-defined]


@pytest.mark.usefixtures("few_digits")
def test_an_earlier_state_brings_back_the_attack_in_its_full_size(config: TrainConfig, tmp_path: Path) -> None:
    """The warm-up had made it smaller before it was replaced."""
    warm = replace(config, attack=AttackConfig(training="fast", eps=16, eps_warmup=10))
    trainer = create_trainer(watched(warm, then="recover"), tmp_path)
    start = trainer.save()
    minibatches = trainer.train_loader.epoch(0)
    trainer.train_step([next(minibatches)])
    sentinel_of(trainer).recover()
    trainer.train_step([next(minibatches)])
    trainer.load(start)
    trainer.train_step([next(minibatches)])
    attack = trainer.task.attack  # type: ignore[attr-defined]
    assert (attack.name, attack.eps, attack.alpha) == ("pgd", pytest.approx(1.6), pytest.approx(2.0))


@pytest.mark.usefixtures("collapse")
def test_a_stopped_run_can_recover_later(config: TrainConfig, tmp_path: Path) -> None:
    config = replace(config, schedule=replace(config.schedule, name="constant"))
    fitted(watched(config, then="stop"), tmp_path / "run")
    trainer, said = fitted(watched(config, then="recover"), tmp_path / "run", resume=True)
    assert [text.rpartition("; ")[2] for text in said] == ["the run is back at iteration 6 and goes on with n_fgsm"]
    assert said[0].startswith("robust accuracy has collapsed by iteration 14")
    assert trainer.step == 15


@pytest.mark.usefixtures("collapse")
def test_without_a_checkpoint_to_go_back_to(config: TrainConfig, tmp_path: Path) -> None:
    config = replace(config, keep=1)
    trainer = create_trainer(watched(config), tmp_path)
    at_step(trainer, 11, trainer.request_stop)
    trainer.fit()
    resumed, said = fitted(watched(config, then="recover"), tmp_path, resume=True)
    assert (resumed.step, said) == (12, [])
    assert resumed.stopped_because == f"{TEXT}; no checkpoint of iteration 8 or before is left"


@pytest.mark.usefixtures("few_digits")
def test_a_second_collapse_stops_the_run(config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def check(self: Sentinel) -> Check:
        return Check(0.5 if self._run.task.state_dict()["iteration"] <= 8 else 0.0, 0.75, 64)

    monkeypatch.setattr(Sentinel, "check", check)
    trainer, said = fitted(watched(config, then="recover"), tmp_path)
    assert len(said) == 1 and (trainer.step, trainer.stopped_because) == (12, TEXT)


@pytest.mark.usefixtures("collapse")
def test_the_command_says_it_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--model.options.width", "0.25", "--epochs", "4", "--sentinel.every", "4", "--out", str(tmp_path)]
    assert main(["train", *options, "--sentinel.then", "stop", "--attack.eps", "64"]) == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "robust accuracy" in line]
    assert line.startswith("fastadv train: stopped, because robust accuracy has collapsed by iteration 16: of 64")
    assert main(["train", *options, "--resume", "--sentinel.then", "recover", "--attack.k", "0"]) == 2


# --- checkpoints -----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("few_digits")
def test_a_checkpoint_without_a_sentinels_state(config: TrainConfig, tmp_path: Path) -> None:
    """As earlier versions wrote them, and training that is not watched."""
    trainer = create_trainer(watched(config), tmp_path)
    trainer.run.sentinel = None
    at_step(trainer, 3, trainer.request_stop)
    trainer.fit()
    resumed = create_trainer(watched(config), tmp_path, resume=True)
    assert resumed.step == 3 and sentinel_of(resumed).state_dict()["last"] == [0.0, 0.0, 0]
    resumed.fit()


# --- several processes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("collapsed", [0, 1])
def test_processes_decide_together(collapsed: int, config: TrainConfig, tmp_path: Path) -> None:
    """Only one of them loses its images under PGD; the counts of both decide."""
    config = replace(watched(config, then="recover", fall=0.3), m=16)
    results = succeeded(together(2, runs.train_with_collapse, config, tmp_path, collapsed))
    for result in results:
        assert (result["step"], result["recovered"], result["robust"]) == (15, True, 1.0)
    assert same(results[0]["weights"], results[1]["weights"])
    (said,), nothing = results[0]["warned"], results[1]["warned"]
    assert nothing == []
    assert said.startswith("robust accuracy has collapsed by iteration 12: of 64 training images at eps 64, 50% are")
    assert checkpoints(tmp_path) == [10, 12, 15]


# --- phases ----------------------------------------------------------------------------------------------------------


def in_phases(config: TrainConfig) -> TrainConfig:
    """Two phases of five iterations; a checkpoint at the end of each alone."""
    phases: list[dict[str, Any]] = [{"epochs": 1}, {"epochs": 1, "attack": {"eps_upper": 32.0}}]
    attack = replace(config.attack, start_after=0)
    return replace(config, attack=attack, phases=phases, epochs=2, checkpoint_every=0)


@pytest.fixture
def collapse_in_phase_1(few_digits: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let checks find that robustness collapses after iteration 7, and not under n_fgsm."""

    def check(self: Sentinel) -> Check:
        robust = 0.5 if self.recovered or self._run.task.state_dict()["iteration"] <= 7 else 0.0
        return Check(robust, 0.75, 64)

    monkeypatch.setattr(Sentinel, "check", check)


@pytest.mark.usefixtures("collapse_in_phase_1")
def test_going_back_over_the_border_of_a_phase(config: TrainConfig, tmp_path: Path) -> None:
    """The checkpoint from before the fall is one of the phase before; the next starts with n_fgsm, also if resumed."""
    config = watched(in_phases(config), then="recover", every=1)
    whole, (said,) = fitted(config, tmp_path / "whole")
    assert said.endswith("; the run is back at iteration 5 and goes on with n_fgsm")
    assert whole.task.attack.name == "n_fgsm" and sentinel_of(whole).recovered  # type: ignore[attr-defined]

    stopped = create_trainer(config, tmp_path / "run")
    go_back = stopped._go_back

    def and_stop(path: Path) -> None:
        go_back(path)
        stopped.request_stop()

    stopped._go_back = and_stop  # type: ignore[method-assign]
    with pytest.warns(UserWarning, match="goes on with n_fgsm"):
        stopped.fit()
    assert stopped.step == 5
    resumed, said_again = fitted(config, tmp_path / "run", resume=True)
    assert said_again == [] and sentinel_of(resumed).recovered
    assert_same_run(tmp_path / "whole", tmp_path / "run")


@pytest.mark.usefixtures("few_digits")
def test_phases_that_are_not_watched(config: TrainConfig, tmp_path: Path) -> None:
    """They are left alone, which is said once; refused is only a sentinel that watches none."""
    clean: dict[str, Any] = {"epochs": 1, "attack": {"k": 0}}
    attack = replace(config.attack, start_after=0)
    mixed = replace(config, attack=attack, phases=[clean, {"epochs": 1}], epochs=2)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer = create_trainer(watched(mixed, then="stop"), tmp_path)
    said = [str(warning.message) for warning in caught]
    assert said == ["the sentinel does not watch phases[0] (attack.k 0 is training on clean images)"]
    assert [stage.sentinel is None for stage in trainer.run.stages] == [True, False]
    with pytest.raises(ValueError, match=r"sentinel.every 2, .* stop: .* attack.k 0 is training on clean"):
        watched(replace(config, attack=replace(attack, k=0)), then="stop")


@pytest.mark.usefixtures("collapse_in_phase_1")
def test_going_back_to_a_phase_that_is_not_watched(config: TrainConfig, tmp_path: Path) -> None:
    """It keeps its own attack; the next phase starts with n_fgsm."""
    config = in_phases(config)
    config = replace(config, phases=[{"epochs": 1, "attack": {"k": 0}}, {"epochs": 1}])
    config = watched(config, then="recover", every=1)
    whole, (_, said) = fitted(config, tmp_path / "whole")
    assert said.endswith("; the run is back at iteration 5 and goes on with n_fgsm")
    assert [stage.task.attack.name for stage in whole.run.stages] == ["step_ll", "n_fgsm"]  # type: ignore[attr-defined]


@pytest.mark.usefixtures("few_digits")
def test_checks_are_part_of_the_cost(config: TrainConfig, tmp_path: Path) -> None:
    """A check has 13 forward passes and 11 backward passes to the images, of 64 images: 512 images of training."""
    costs = []
    for every in (5, 0):
        trainer = create_trainer(watched(config, every=every), tmp_path / str(every))
        trainer.fit()
        assert trainer.run.cost == pytest.approx(sum(predict(trainer.run)), rel=0.02)
        costs.append(trainer.run.cost)
    assert costs[0] - costs[1] == pytest.approx(2 * 512 / 160)  # at iterations 9 and 14, of 160 images an epoch
