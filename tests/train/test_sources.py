"""Static sources (ensemble adversarial training): which network makes the examples, and runs that resume."""

from __future__ import annotations

import copy
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from fastadv import PixelSpace, attacks, models
from fastadv.distributed import Processes
from fastadv.models.specs import ModelSpec, parse_spec
from fastadv.study.networks import Network
from fastadv.train import AdversarialTask, AttackConfig, TrainConfig, checkpoint, create_trainer, fast_task
from fastadv.train.config_errors import ConfigError
from fastadv.train.config_parsing import parse_config
from fastadv.train.resume import with_absolute_paths
from fastadv.train.tasks import base
from fastadv.utils.rng import RecordedDraws
from tests.train import runs
from tests.train.group import succeeded, together
from tests.train.test_config import free
from tests.train.test_task import RAW, Pixels, batch, cnn
from tests.train.test_trainer import same

UNIT, SYMMETRIC = PixelSpace.unit(), PixelSpace.symmetric()


class Negative(nn.Module):
    """The logits are the pixels, negated: FGSM moves each pixel the other way."""

    def forward(self, images: Tensor) -> Tensor:  # [m, K, 1, 1] -> [m, K]
        return -images.flatten(1)


def other_cnn(seed: int, **options: Any) -> nn.Module:
    torch.manual_seed(seed)
    return models.create("small_cnn", **{"num_classes": 10, "in_channels": 1, "width": 0.25, **options})


def drawn(seed: int, iteration: int, networks: int) -> int:
    """The number of the network, 0 for the one that is trained."""
    return int(np.random.SeedSequence(seed, spawn_key=(iteration,)).generate_state(1)[0]) % networks


def test_examples_are_made_on_the_network_or_on_the_source() -> None:
    """FGSM with eps = 1 lowers the logit of class 0: pixel [10, 12] -> [9, 13], and on the source -> [11, 11]."""
    task = AdversarialTask(Pixels(), attack="fgsm", k=1, eps=1, space=RAW, seed=5, sources=[Negative()])
    found = []
    for _ in range(8):
        images = torch.tensor([[10.0, 12.0], [20.0, 14.0]]).view(2, 2, 1, 1)
        task(images, torch.tensor([0, 0]))
        assert images.flatten(1)[1].tolist() == [20, 14]
        found.append(images.flatten(1)[0].tolist())
    assert found == [[[9, 13], [11, 11]][drawn(5, iteration, 2)] for iteration in range(8)]
    assert len({tuple(one) for one in found}) == 2


def test_against_a_plain_loop() -> None:
    sources = [other_cnn(1), other_cnn(2, activation="tanh")]
    model, plain = cnn(), cnn()
    task = AdversarialTask(model, k=4, lambda_=0.3, eps=6, space=UNIT, seed=3, sources=sources)
    optimizers = [torch.optim.SGD(one.parameters(), lr=0.1) for one in (model, plain)]
    used = set()
    for iteration in range(6):
        images, labels = batch(seed=iteration)
        number = drawn(3, iteration, 3)
        used.add(number)
        adv = images.clone()
        attacks.create("step_ll", [plain, *sources][number], eps=6, space=UNIT).perturb_(adv[:4])
        losses = cross_entropy(plain(adv), labels, reduction="none")
        expected = (0.3 * losses[:4].sum() + losses[4:].sum()) / (4 + 0.3 * 4)
        loss = task(images, labels)
        assert torch.equal(images, adv)
        torch.testing.assert_close(loss, expected)
        for optimizer, one in zip(optimizers, (loss, expected), strict=True):
            optimizer.zero_grad()
            one.backward()
            optimizer.step()
    assert used == {0, 1, 2}


@pytest.mark.parametrize("seed", [3, None])
def test_each_network_is_drawn_equally_often(seed: int | None) -> None:
    torch.manual_seed(0)
    task = AdversarialTask(Pixels(), k=1, eps=1, space=RAW, seed=seed, sources=[Negative(), Negative()])
    counts = Counter(id(task._sources.choose(task.attack, iteration)) for iteration in range(3000))
    assert len(counts) == 3 and all(abs(count - 1000) < 4 * (3000 * 2 / 9) ** 0.5 for count in counts.values())


def test_processes_choose_as_one_that_takes_their_minibatches_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    def examples(rank: int, world_size: int, minibatches: int) -> list[list[float]]:
        monkeypatch.setattr(base, "current", lambda: Processes(rank=rank, world_size=world_size, local_rank=rank))
        task = AdversarialTask(Pixels(), attack="fgsm", k=1, eps=1, space=RAW, seed=5, sources=[Negative()])
        made = []
        for _ in range(minibatches):
            images = torch.tensor([[10.0, 12.0]]).view(1, 2, 1, 1)
            task(images, torch.tensor([0]))
            made.append(images.flatten().tolist())
        return made

    alone, first, second = examples(0, 1, 8), examples(0, 2, 4), examples(1, 2, 4)
    assert [one for pair in zip(first, second, strict=True) for one in pair] == alone
    assert first != second


def test_sources_stay_as_they_are() -> None:
    source, model = other_cnn(1), cnn()
    before = copy.deepcopy(source.state_dict())
    own = model.state_dict()["features.0.1.running_mean"].clone()
    options = {"bn": "batch"}
    task = AdversarialTask(model, k=4, eps=6, space=UNIT, seed=3, sources=[source], attack_options=options)
    for iteration in range(8):
        task(*batch(seed=iteration)).backward()
    assert {drawn(3, iteration, 2) for iteration in range(8)} == {0, 1}
    assert not any(module.training for module in source.modules())
    assert not any(parameter.requires_grad or parameter.grad is not None for parameter in source.parameters())
    assert all(torch.equal(value, before[name]) for name, value in source.state_dict().items())
    assert not torch.equal(model.state_dict()["features.0.1.running_mean"], own)
    assert all(parameter.requires_grad for parameter in model.parameters()) and model.training


def test_a_source_of_another_space() -> None:
    """The examples are those that an attack on the source makes in the source's own space, converted."""
    source, (images, labels) = other_cnn(1), batch()
    task = AdversarialTask(cnn(), k=8, eps=6, space=UNIT, seed=3, sources=[(source, SYMMETRIC)])
    task.iteration = next(iteration for iteration in range(20) if drawn(3, iteration, 2) == 1)
    expected = attacks.create("step_ll", source, eps=6, space=SYMMETRIC)(2 * images - 1)
    task(images, labels)
    torch.testing.assert_close(images, (expected + 1) / 2, rtol=0, atol=1e-6)


def test_attacks_on_sources_follow_the_tasks_own() -> None:
    task = fast_task(Pixels(), eps=8, space=RAW, seed=1, sources=[Negative()])
    task.attack.eps = 4.0
    found = {type(one.model): one for one in (task._sources.choose(task.attack, number) for number in range(20))}
    assert [(one.eps, one.alpha, one.stream) for one in found.values()] == [(4.0, 10.0, task.attack.stream)] * 2  # type: ignore[attr-defined]


def with_sources(*sources: Any, model: nn.Module | None = None) -> AdversarialTask:
    return AdversarialTask(model or cnn(), k=4, space=UNIT, seed=3, sources=list(sources))


def test_a_resumed_task_draws_the_same() -> None:
    whole, first = (with_sources(other_cnn(1), other_cnn(2)) for _ in range(2))
    expected = [whole(*batch(seed=iteration)).item() for iteration in range(6)]
    found = [first(*batch(seed=iteration)).item() for iteration in range(2)]
    second = with_sources(other_cnn(1), other_cnn(2), model=first.model)
    second.load_state_dict(first.state_dict())
    found += [second(*batch(seed=iteration)).item() for iteration in range(2, 6)]
    assert found == expected


@pytest.mark.parametrize(
    ("sources", "said"),
    [
        ([other_cnn(2), other_cnn(1)], "saved with another network, or with another pixel space, as sources[0]"),
        ([other_cnn(1), (other_cnn(2), SYMMETRIC)], "another pixel space, as sources[1]: pass the same sources in"),
        ([other_cnn(1)], "the state was saved with another number of sources: 2, not 1"),
        ([], "the state was saved by a task with static sources, and this one has none: pass the same sources"),
    ],
)
def test_other_sources_than_those_of_the_state(sources: list[Any], said: str) -> None:
    state = with_sources(other_cnn(1), other_cnn(2)).state_dict()
    with pytest.raises(ValueError) as error:
        with_sources(*sources).load_state_dict(state)
    assert said in str(error.value)


def test_the_memory_layout_does_not_matter_to_a_state() -> None:
    state = with_sources(other_cnn(1)).state_dict()
    with_sources(other_cnn(1).to(memory_format=torch.channels_last)).load_state_dict(state)


@pytest.mark.parametrize(
    ("sources", "kind", "said"),
    [
        (Negative(), TypeError, "sources must be a list of modules, as in [model], got Negative"),
        ([3], TypeError, "sources[0] must be a module, or a pair (module, PixelSpace), got 3"),
        ([(Negative(), "unit")], TypeError, "or a pair (module, PixelSpace), got (Negative, str)"),
        ([(cnn(), PixelSpace((0, 0), (2, 3)))], ValueError, "sources[0] has a space of 2 channels, and that of the"),
    ],
)
def test_bad_sources(sources: Any, kind: type[Exception], said: str) -> None:
    space = PixelSpace.imagenet() if said.startswith("sources[0] has a space") else UNIT
    with pytest.raises(kind) as error:
        AdversarialTask(cnn(), space=space, sources=sources)
    assert said in str(error.value) and "\n" not in str(error.value)


def test_sources_without_adversarial_examples() -> None:
    with pytest.raises(ValueError, match=r"^sources have no effect with k=0: there are no adversarial examples"):
        AdversarialTask(cnn(), k=0, space=UNIT, sources=[other_cnn(1)])


def test_the_network_itself_is_refused() -> None:
    model = cnn()
    for source in (model, nn.Sequential(model)):
        with pytest.raises(ValueError, match=r"sources\[1\] has parameters of the model that is trained"):
            AdversarialTask(model, space=UNIT, sources=[other_cnn(1), source])
    assert model.training and all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (lambda: other_cnn(1, num_classes=5), "sources[0] has 5 classes, and the model has 10: a source must be a"),
        (lambda: other_cnn(1, in_channels=3), "sources[0] fails on images [8, 1, 8, 8]: Given groups=1"),
        (lambda: other_cnn(1).to("meta"), "sources[0] is on meta, and the images are on cpu: move it there by"),
    ],
)
def test_sources_that_do_not_fit_are_refused_in_the_first_call(source: Any, said: str) -> None:
    images, labels = batch()
    task = AdversarialTask(cnn(), k=4, space=UNIT, start_after=3, sources=[source()])
    with pytest.raises(ValueError) as error:
        task(images, labels)
    assert str(error.value).startswith(said) and "\n" not in str(error.value)
    assert torch.equal(images, batch()[0]) and task.iteration == 0


def test_a_call_with_sources_is_not_recorded() -> None:
    with (
        pytest.raises(ValueError, match="sources do not go with capture"),
        with_sources(other_cnn(1)).recorded(RecordedDraws(torch.device("cpu"))),
    ):
        pass


# --- runs ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def with_two(few_digits: None, config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrainConfig:
    """A run with two sources: a short run's folder, and a file of weights; relative to the working directory."""
    monkeypatch.chdir(tmp_path)
    create_trainer(replace(config, epochs=1, attack=AttackConfig(k=0)), "source").fit()
    torch.manual_seed(7)
    torch.save(models.create("timm/test_resnet", num_classes=10, in_channels=1).state_dict(), "w.pth")
    return replace(config, attack=replace(config.attack, sources=["source", "timm/test_resnet@w.pth"]))


def test_a_run_is_continued_exactly_from_another_folder(
    with_two: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", logger="fastadv"):
        whole = create_trainer(with_two, "whole")
    assert f"timm/test_resnet@{tmp_path}/w.pth is taken to need data.space unit" in caplog.text
    whole.fit()
    stopped = create_trainer(replace(with_two, epochs=3), "stopped")
    stopped.train_step = lambda minibatches, step=stopped.train_step: (  # type: ignore[method-assign, misc]
        step(minibatches),
        stopped.request_stop() if stopped.step == 7 else None,
    )
    stopped.fit()
    assert stopped.step == 7
    assert stopped.last_checkpoint is not None
    stored = checkpoint.load_config(stopped.last_checkpoint)
    assert stored.attack.sources == [f"{tmp_path}/source", f"timm/test_resnet@{tmp_path}/w.pth"]
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    torch.manual_seed(123)
    resumed = create_trainer(stored, tmp_path / "stopped", resume=True)
    resumed.fit()
    assert same(resumed.model.state_dict(), whole.model.state_dict())


def test_in_two_processes(with_two: TrainConfig, tmp_path: Path) -> None:
    results = succeeded(together(2, runs.train, with_absolute_paths(with_two), tmp_path / "run"))
    assert same(results[0]["weights"], results[1]["weights"])
    assert results[0]["step"] == 6


def test_sources_may_move_but_not_change(with_two: TrainConfig, tmp_path: Path) -> None:
    trainer = create_trainer(with_two, "run")
    trainer.save()
    shutil.move("source", "moved")
    moved = replace(with_two.attack, sources=["moved", "timm/test_resnet@w.pth"])
    create_trainer(replace(with_two, attack=moved), "run", resume=True)
    torch.save(models.create("timm/test_resnet", num_classes=10, in_channels=1).state_dict(), "w.pth")
    with pytest.raises(ValueError, match=r"another network, or with another pixel space, as sources\[1\]"):
        create_trainer(replace(with_two, attack=moved), "run", resume=True)
    fewer = replace(moved, sources=["moved"])
    with pytest.raises(ValueError, match=r"cannot be resumed with another configuration: attack.sources was \["):
        create_trainer(replace(with_two, attack=fewer), "run", resume=True)


OWN_SOURCE = """
from fastadv import models

def of_five():
    return models.create("small_cnn", num_classes=5, in_channels=1)

def of_ten():
    return models.create("small_cnn", num_classes=10, in_channels=1)
"""


def test_a_source_of_ones_own(with_two: TrainConfig) -> None:
    Path("own_source.py").write_text(OWN_SOURCE)
    given = replace(with_two.attack, sources=["own_source.py:of_ten"])
    trainer = create_trainer(replace(with_two, attack=given), "run")
    assert trainer.config.attack.sources == [str(Path("own_source.py:of_ten").absolute())]


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("none", "^attack.sources: .*none is neither a checkpoint nor the folder of a run that has one"),
        (
            "w.pth",
            "attack.sources: .*w.pth is a file, which does not say what network its weights are of: name that, too",
        ),
        ("timm/test_resnet@none.pth", "there is no weights file .*none.pth"),
        ("small_cnn@w.pth", "attack.sources: .*w.pth does not fit the model SmallCNN: the file lacks"),
        (
            "timm/test_resnet@five.pth",
            r"five.pth does not fit .*: .* fc.weight is \[5, 96\] in the file and \[10, ",
        ),
        ("gone_net@w.pth", "attack.sources: unknown model 'gone_net'"),
        ("own_source.py:of_five", "own_source.py:of_five: it has 5 classes, and the data set has 10"),
        ("own_source.py:gone", "attack.sources: .*own_source.py does not define .gone."),
        ("others", "attack.sources: .*others was trained on other classes than those of digits: class 0 was 'zero'"),
    ],
)
def test_sources_of_a_run_that_do_not_fit(with_two: TrainConfig, source: str, said: str) -> None:
    if "five" in source:
        torch.save(models.create("timm/test_resnet", num_classes=5, in_channels=1).state_dict(), "five.pth")
    Path("own_source.py").write_text(OWN_SOURCE)
    if source == "others":
        trainer = create_trainer(with_two, "others")
        trainer.run.classes = ("zero", *trainer.run.classes[1:])
        trainer.save()
    given = replace(with_two.attack, sources=[source])
    with pytest.raises((ValueError, OSError), match=said) as error:
        create_trainer(replace(with_two, attack=given), "run")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (["--attack.sources", "a", "b=c@d.pth", "--epochs", "2"], ["a", "b=c@d.pth"]),
        (["--attack.sources=[a,b]"], ["a", "b"]),
        (["--attack.sources", "[a, b]"], ["a", "b"]),
        (["--attack.sources", "[]"], []),
        (["--attack.sources", "a, b"], ["a, b"]),
        ([], ["of the recipe"]),
    ],
)
def test_sources_on_the_command_line(arguments: list[str], found: list[str]) -> None:
    assert parse_config({"attack": {"sources": ["of the recipe"]}}, arguments).attack.sources == found


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: AttackConfig(sources="runs/a"), "attack.sources must be a list of networks, as in [runs/a, runs/b]"),  # type: ignore[arg-type]
        (lambda: AttackConfig(sources=[""]), "attack.sources must be a list of networks"),
        (lambda: AttackConfig(training="paired", k=16, sources=["a"]), "attack.sources has no effect with attack.tra"),
        (lambda: free(sources=["a"]), "attack.sources has no effect with attack.training free: leave it out"),
        (lambda: AttackConfig(sources=["a", "b", "a"]), "attack.sources names a twice"),
        (lambda: TrainConfig(attack=AttackConfig(k=0, sources=["a"])), "attack.sources has no effect with attack.k 0"),
        (lambda: TrainConfig(capture=True, attack=AttackConfig(sources=["a"])), "capture does not go with attack.sou"),
        (lambda: parse_config({"attack": {"sources": "a"}}), "attack.sources must be a list, as in --attack.sources A"),
        (lambda: parse_config({}, ["--attack.sources"]), "--attack.sources"),
    ],
)
def test_refused_in_a_configuration(make: Any, said: str) -> None:
    with pytest.raises((ValueError, ConfigError)) as error:
        make()
    assert said in str(error.value) and "\n" not in str(error.value)


def test_sources_are_part_of_a_networks_id() -> None:
    with_one = TrainConfig(attack=AttackConfig(sources=["a"]))
    assert Network("a", TrainConfig()).id != Network("a", with_one).id


@pytest.mark.parametrize(
    ("text", "spec", "absolute"),
    [
        ("runs/a", ModelSpec("runs/a", "", Path("runs/a")), "/here/runs/a"),
        ("A=net@b/w.pth", ModelSpec("net@b/w.pth", "A", Path("b/w.pth"), "net"), "net@/here/b/w.pth"),
        ("timm/n@/w.pth", ModelSpec("timm/n@/w.pth", "", Path("/w.pth"), "timm/n"), "timm/n@/w.pth"),
        ("V=hf/vit", ModelSpec("hf/vit", "V", Path("vit"), transformers=True), "hf//here/vit"),
        ("b/my.py:net", ModelSpec("b/my.py:net", "", Path("b/my.py"), factory="net"), "/here/b/my.py:net"),
        ("my.nets:net", ModelSpec("my.nets:net", "", Path("my.nets"), factory="net"), "my.nets:net"),
    ],
)
def test_absolute_paths_of_specs(text: str, spec: ModelSpec, absolute: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.getcwd", lambda: "/here")
    assert (parse_spec(text), parse_spec(text).absolute().text) == (spec, absolute)


def test_a_phase_on_clean_images_may_have_sources() -> None:
    attack = AttackConfig(sources=["a"])
    config = TrainConfig(attack=attack, phases=[{"epochs": 1, "attack": {"k": 0}}, {"epochs": 1}])
    assert [phase.attack.sources for phase in config.in_phases()] == [["a"], ["a"]]


def test_a_run_crosses_into_and_out_of_such_a_phase(with_two: TrainConfig) -> None:
    phases = [{"epochs": 1}, {"epochs": 1, "attack": {"k": 0}}, {"epochs": 1}]
    trainer = create_trainer(replace(with_two, epochs=3, phases=phases), "run")
    trainer.fit()
    assert trainer.run.task.iteration == trainer.run.total_steps
    assert len(trainer.run.task.state_dict()["sources"]) == 2


def test_the_same_module_twice() -> None:
    one = other_cnn(1)
    with pytest.raises(ValueError, match=r"sources\[2\] is sources\[0\] again"):
        with_sources(one, other_cnn(2), (one, SYMMETRIC))
