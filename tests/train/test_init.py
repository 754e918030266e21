"""Runs that start from given weights: model.init."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from fastadv import models
from fastadv.models.shapes import head_of
from fastadv.study.networks import Network
from fastadv.train import ModelConfig, TrainConfig, Trainer, checkpoint, create_trainer
from fastadv.train.config_parsing import parse_config
from fastadv.train.validation import validate
from tests.train import runs
from tests.train.group import succeeded, together
from tests.train.test_trainer import same

pytestmark = pytest.mark.usefixtures("few_digits")


def starting_from(config: TrainConfig, init: str | os.PathLike[str] | None, *, head: bool = True) -> TrainConfig:
    return replace(config, model=replace(config.model, init=None if init is None else str(init), init_head=head))


def network(seed: int = 1, **options: Any) -> torch.nn.Module:
    torch.manual_seed(seed)
    return models.create("small_cnn", **{"num_classes": 10, "in_channels": 1, "width": 0.25, "dropout": 0.5, **options})


@pytest.fixture
def source(config: TrainConfig, tmp_path: Path) -> Trainer:
    trainer = create_trainer(replace(config, seed=5, epochs=1), tmp_path / "source")
    trainer.fit()
    return trainer


def as_file(suffix: str) -> Callable[[Trainer, Path], Path]:
    def save(source: Trainer, folder: Path) -> Path:
        path = folder / f"w{suffix}"
        weights = source.model.state_dict()
        if suffix == ".safetensors":
            save_file(weights, path)
        else:
            torch.save({"state_dict": {f"module.{name}": value for name, value in weights.items()}, "epoch": 3}, path)
        return path

    return save


@pytest.mark.parametrize(
    "given",
    [
        as_file(".safetensors"),
        as_file(".pth"),
        lambda source, folder: source.run_dir,
        lambda source, folder: source.last_checkpoint,
    ],
    ids=["safetensors", "pth", "run", "checkpoint"],
)
def test_training_starts_with_exactly_these_weights(
    given: Callable[[Trainer, Path], Path], source: Trainer, config: TrainConfig, tmp_path: Path
) -> None:
    config = starting_from(replace(config, ema_decay=0.9), given(source, tmp_path))
    trainer = create_trainer(config, tmp_path / "run")
    assert trainer.averages is not None
    for module in (trainer.model, trainer.averages.module):
        assert same(module.state_dict(), source.model.state_dict())
    assert validate(trainer.run, trainer.model) == source.test_accuracy
    first = checkpoint.load_weights(trainer.save())
    assert same(first, source.model.state_dict())
    trainer.fit()
    assert not same(trainer.model.state_dict(), source.model.state_dict())


def test_the_rest_of_the_run_does_not_depend_on_where_weights_are_from(config: TrainConfig, tmp_path: Path) -> None:
    """The same dropout and the same draws: weights that are those of the seed's own start change nothing."""
    plain = create_trainer(config, tmp_path / "plain")
    own_start = shutil.copytree(plain.save(), tmp_path / "start" / "step-00000000")
    plain.fit()
    given = create_trainer(starting_from(config, own_start), tmp_path / "given")
    given.fit()
    assert same(given.model.state_dict(), plain.model.state_dict())


def weights_for(classes: int, path: Path) -> Path:
    torch.save(network(num_classes=classes).state_dict(), path)
    return path


def test_a_new_classifier(config: TrainConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = weights_for(5, tmp_path / "w.pth")
    with caplog.at_level("INFO", logger="fastadv"):
        trainer = create_trainer(starting_from(config, path, head=False), tmp_path / "run")
    assert "model.init: classifier.bias, classifier.weight start at random (model.init_head false)" in caplog.text
    at_random = create_trainer(config, tmp_path / "random").model.state_dict()
    file = torch.load(path, weights_only=True)
    for name, value in trainer.model.state_dict().items():
        assert torch.equal(value, (at_random if name.startswith("classifier") else file)[name])


def test_a_classifier_of_the_right_size_is_left_out_too(config: TrainConfig, tmp_path: Path) -> None:
    path = weights_for(10, tmp_path / "w.pth")
    given = create_trainer(starting_from(config, path, head=False), tmp_path / "run").model
    at_random = create_trainer(config, tmp_path / "random").model
    assert torch.equal(given.get_parameter("classifier.weight"), at_random.get_parameter("classifier.weight"))


def test_a_file_without_a_classifier(config: TrainConfig, tmp_path: Path) -> None:
    weights = {name: value for name, value in network().state_dict().items() if "classifier" not in name}
    torch.save(weights, tmp_path / "w.pth")
    trainer = create_trainer(starting_from(config, tmp_path / "w.pth", head=False), tmp_path / "run")
    assert all(torch.equal(trainer.model.state_dict()[name], value) for name, value in weights.items())


LEAVES_IT_OUT = "; model.init_head false leaves out the classifier, all that differs"


@pytest.mark.parametrize(
    ("options", "head", "said"),
    [
        (
            {"num_classes": 5},
            True,
            "classifier.bias is [5] in the file and [10] in the model, classifier.weight is [5, 16] in the file and "
            "[10, 16] in the model. Pass the model that the weights were trained with, and a data set with its number "
            f"of classes{LEAVES_IT_OUT}",
        ),
        ({"width": 0.5}, False, "features.0.0.weight is [8, 1, 3, 3] in the file and [4, 1, 3, 3] in the model, "),
        ({"width": 0.5}, True, " in the model and 22 more. Pass the model that the weights were trained with, and a"),
        ({"deeper": True}, True, "the model has no features.5.0.weight, features.5.1.bias, features.5.1."),
    ],
)
def test_weights_that_do_not_fit(
    options: dict[str, Any], head: bool, said: str, config: TrainConfig, tmp_path: Path
) -> None:
    torch.save(network(**options).state_dict(), tmp_path / "w.pth")
    with pytest.raises(ValueError) as error:
        create_trainer(starting_from(config, tmp_path / "w.pth", head=head), tmp_path / "run")
    text = str(error.value)
    assert text.startswith(f"model.init: {tmp_path}/w.pth does not fit the model SmallCNN: ") and said in text
    assert text.endswith(LEAVES_IT_OUT) == ("num_classes" in options) and "\n" not in text
    assert not (tmp_path / "run").exists()


class Runs:
    def __reduce__(self) -> Any:
        return os.mkdir, ("executed",)


def test_nothing_in_a_file_is_executed(config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": network().state_dict(), "args": Runs()}, "w.pth")
    with pytest.raises(ValueError, match=r"model.init: .*w.pth does not hold plain tensors"):
        create_trainer(starting_from(config, "w.pth"), "run")
    assert not Path("executed").exists()


@pytest.mark.parametrize(
    ("init", "kind", "said"),
    [
        ("none.pth", FileNotFoundError, "there is no run, checkpoint or file of weights .*none.pth"),
        ("small_cnn@w.pth", FileNotFoundError, "small_cnn@w.pth: give w.pth alone, and the network by model.name"),
        ("folder", FileNotFoundError, "model.init: .*folder is neither a checkpoint nor the folder of a run"),
        ("w.txt", ValueError, "model.init: weights files must be .safetensors, .pth, "),
    ],
)
def test_no_weights(
    init: str, kind: type[Exception], said: str, config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    Path("w.txt").touch()
    Path("w.pth").touch()
    with pytest.raises(kind, match=said) as error:
        create_trainer(starting_from(config, init), "run")
    assert "\n" not in str(error.value)


def test_a_file_of_a_checkpoint_is_named_by_its_folder(source: Trainer, config: TrainConfig, tmp_path: Path) -> None:
    assert source.last_checkpoint is not None
    with pytest.raises(ValueError, match=r"is part of a checkpoint, .* pass .*step-00000005 instead"):
        create_trainer(starting_from(config, source.last_checkpoint / "model.safetensors"), tmp_path / "run")


def test_resuming_does_not_need_the_weights(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(network().state_dict(), "w.pth")
    config = starting_from(config, "w.pth")
    whole = create_trainer(config, "whole")
    whole.fit()
    stopped = create_trainer(config, "run")
    stopped.request_stop()
    stopped.fit()
    assert stopped.last_checkpoint is not None
    assert checkpoint.load_config(stopped.last_checkpoint).model.init == f"{tmp_path}/w.pth"
    Path("w.pth").unlink()
    resumed = create_trainer(config, "run", resume=True)
    resumed.fit()
    assert same(resumed.model.state_dict(), whole.model.state_dict())
    with pytest.raises(ValueError, match=r"another configuration: model.init was '.*/w.pth' and is now '.*/other.pth'"):
        create_trainer(starting_from(config, "other.pth"), "run", resume=True)


def test_another_pixel_space_is_warned_of(source: Trainer, config: TrainConfig, tmp_path: Path) -> None:
    symmetric = replace(config, data=replace(config.data, space="symmetric"))
    said = r"source was trained in PixelSpace.unit\(\), and data.space is symmetric: the network is less accurate"
    with pytest.warns(UserWarning, match=said):
        create_trainer(starting_from(symmetric, source.run_dir), tmp_path / "run")


def test_the_space_of_a_librarys_own_weights(config: TrainConfig, tmp_path: Path) -> None:
    torch.save(models.create("timm/test_resnet", num_classes=10, in_channels=1).state_dict(), tmp_path / "w.pth")
    named = replace(config, model=ModelConfig(name="timm/test_resnet.r160_in1k", init=str(tmp_path / "w.pth")))
    with pytest.warns(UserWarning, match=r"w.pth was trained in PixelSpace.* and data.space is unit"):
        create_trainer(named, tmp_path / "run")


@pytest.mark.parametrize("head", [True, False])
def test_other_classes_are_warned_of(
    head: bool, source: Trainer, config: TrainConfig, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    source.run.classes = ("zero", *source.run.classes[1:])
    source.save()
    create_trainer(starting_from(config, source.run_dir, head=head), tmp_path / "run")
    said = "source was trained on other classes: class 0 was 'zero' and is '0'; model.init_head false leaves out its"
    assert any(said in str(warning.message) for warning in recwarn) == head


@pytest.mark.parametrize(
    ("name", "options", "in_channels", "head"),
    [
        ("small_cnn", {"width": 0.25}, 1, {"classifier"}),
        ("inception_v3", {"width": 0.125}, 3, {"fc", "AuxLogits.fc"}),
        ("inception_v3", {"width": 0.125, "aux": False}, 3, {"fc"}),
        ("timm/test_vit", {}, 1, {"head"}),
        ("torchvision/squeezenet1_1", {}, 3, {"classifier.1"}),
        ("torchvision/regnet_y_400mf", {}, 3, {"fc"}),  # its constructor reads values
    ],
)
def test_the_classifier_of_a_network(name: str, options: dict[str, Any], in_channels: int, head: set[str]) -> None:
    random = torch.get_rng_state()
    found = head_of(name, num_classes=7, in_channels=in_channels, options=options)
    assert {weight.rpartition(".")[0] for weight in found} == head and len(found) == 2 * len(head)
    assert torch.equal(torch.get_rng_state(), random)


def test_only_the_main_process_reads_the_weights(config: TrainConfig, tmp_path: Path) -> None:
    torch.save(network().state_dict(), tmp_path / "w.pth")
    config = starting_from(config, tmp_path / "w.pth")
    results = succeeded(together(2, runs.initial_weights, config, tmp_path / "run"))
    assert all(same(result, network().state_dict()) for result in results)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: ModelConfig(init=""), "model.init must be the path of weights, or null, got ''"),
        (lambda: ModelConfig(init=3), "model.init must be the path of weights, or null, got 3"),  # type: ignore[arg-type]
        (lambda: ModelConfig(init="w.pth", init_head="false"), "model.init_head must be true or false, got 'false'"),  # type: ignore[arg-type]
        (lambda: ModelConfig(init_head=False), "model.init_head false has no effect without model.init"),
    ],
)
def test_refused_in_a_configuration(make: Any, said: str) -> None:
    with pytest.raises(ValueError) as error:
        make()
    assert str(error.value).startswith(said)


def test_the_short_form() -> None:
    assert parse_config({}, ["--init", "w.pth", "--model.init_head", "false"]).model.init == "w.pth"


def test_the_start_is_part_of_a_networks_id() -> None:
    assert Network("a", TrainConfig()).id != Network("a", TrainConfig(model=ModelConfig(init="w.pth"))).id
