"""fastadv train and fastadv evaluate on images in files."""

from __future__ import annotations

import json
import logging
import os
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from fastadv import data
from fastadv.cli import main
from fastadv.data.sources import manifest
from fastadv.train import (
    AttackConfig,
    DataConfig,
    ModelConfig,
    OptimizerConfig,
    TrainConfig,
    checkpoint,
    create_trainer,
)
from fastadv.train.trainer import Trainer
from tests.data.loaders import LOADERS, each, needs_dali
from tests.data.pictures import write_data_set

each_loader = each("loader", {name: name for name in LOADERS})
BAD = Path("train", "class0", "003.JPEG")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_data_set(tmp_path / "images", per_class=8, classes=3)
    return tmp_path / "images"


def run_config(root: Path, **given: Any) -> TrainConfig:
    return TrainConfig(
        data=DataConfig(name="imagenet", root=str(root), size=16, flip=True, colour=True, workers=1, **given),
        model=ModelConfig(options={"width": 0.25, "dropout": 0.5}),
        attack=AttackConfig(k=3),
        optimizer=OptimizerConfig(name="sgd", lr=0.01),
        m=6,
        epochs=2,
        device="cpu",
        checkpoint_every=1,
    )


def weights(trainer: Trainer) -> torch.Tensor:
    return torch.cat([tensor.flatten().double() for tensor in trainer.model.state_dict().values()])


@each_loader
def test_a_run_that_is_stopped_in_the_middle_of_an_epoch_ends_as_if_it_were_not(
    root: Path, tmp_path: Path, loader: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = run_config(root, loader=loader)
    whole = create_trainer(config, tmp_path / "whole")
    assert whole.total_steps == 8 and (len(whole.run.classes), whole.run.in_channels) == (3, 3)
    whole.fit()

    stopped = create_trainer(config, tmp_path / "stopped")
    stop_at(stopped, 2, monkeypatch)
    stopped.fit()
    assert stopped.step == 2
    resumed = create_trainer(config, tmp_path / "stopped", resume=True)
    resumed.fit()
    assert resumed.finished and torch.equal(weights(resumed), weights(whole))


def test_a_run_keeps_the_whole_path_of_its_images(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It can be evaluated and continued from another working directory, although the path was relative."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    config = run_config(Path("images"), loader="torchvision")
    for number, given in enumerate(("./images/../images", "~/images", "images")):
        run = tmp_path / f"run{number}"
        trainer = create_trainer(replace(config, data=replace(config.data, root=given)), run)
        trainer.save()
        stored = checkpoint.load_model(run).config.data.root
        assert stored == str(root)
    monkeypatch.chdir("/")
    monkeypatch.setattr("fastadv.cli.measure_accuracy._write", lambda *_: [])  # drawing takes seconds
    command = [str(run), "--attacks", "random_sign", "--eps", "8", "--out", str(tmp_path / "out")]
    assert main(["evaluate", *command, "--loader", "torchvision", "--workers", "0"]) == 0
    again = create_trainer(replace(config, data=replace(config.data, root=stored)), run, resume=True)
    assert again.config == trainer.config


def test_an_older_run_that_knows_a_relative_path_says_so(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastadv.train.build._with_absolute_root", lambda config: config)
    monkeypatch.chdir(tmp_path)
    create_trainer(run_config(Path("images"), loader="torchvision"), tmp_path / "run").save()
    monkeypatch.chdir("/")
    assert main(["evaluate", str(tmp_path / "run"), "--out", str(tmp_path / "out")]) == 2
    assert "with --data images, relative to another folder: give its place by --data DIR" in capsys.readouterr().err


def stop_at(trainer: Trainer, step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    train_step = trainer.train_step

    def and_stop(*minibatch: Any) -> None:
        train_step(*minibatch)
        if trainer.step == step:
            trainer.request_stop()

    monkeypatch.setattr(trainer, "train_step", and_stop)


@pytest.mark.filterwarnings("ignore::fastadv.data.BadImageWarning")
@each_loader
@pytest.mark.parametrize("checked", [(False, False), (False, True), (True, False)], ids=["never", "during", "before"])
def test_a_data_set_may_be_checked_at_any_time(
    root: Path, tmp_path: Path, loader: str, checked: tuple[bool, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The manifest leaves out images that were replaced anyway: same order, same crops, same weights."""
    for bad in (BAD, BAD.with_name("004.JPEG"), Path("train", "class2", "007.JPEG")):
        (root / bad).write_bytes(b"not an image")
    config = run_config(root, loader=loader)
    whole = create_trainer(config, tmp_path / "whole")
    whole.fit()
    for check in checked:
        (root / manifest.FILE).unlink(missing_ok=True)
        if check:
            assert main(["data", "check", str(root), "--workers", "1"]) == 1
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".* leaves out 3 of 24 train images")
            parts = create_trainer(config, tmp_path / "parts", resume="auto")
        stop_at(parts, 2, monkeypatch)
        parts.fit()
    assert parts.finished and torch.equal(weights(parts), weights(whole))


def moved(root: Path) -> Path:
    return root.rename(root.with_name("elsewhere"))


def renamed(root: Path) -> Path:
    (root / "train" / "class1" / "003.JPEG").rename(root / "train" / "class1" / "three.JPEG")
    return root


def one_more(root: Path) -> Path:
    (root / "train" / "class1" / "008.JPEG").write_bytes((root / "train" / "class1" / "003.JPEG").read_bytes())
    return root


def of_another_class(root: Path) -> Path:
    """Only the names of the folders: class2 is now class1."""
    for split in ("train", "val"):
        (root / split / "class1").rename(root / split / "class3")
    return root


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (moved, None),
        (renamed, "it still has 24 files, but with other names in its folder"),
        (one_more, "it had 24 images and now has 25"),
        (of_another_class, "it still has 24 files, but with other names"),
    ],
)
def test_a_run_resumes_only_with_its_own_files(
    root: Path, tmp_path: Path, change: Callable[[Path], Path], said: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = run_config(root, loader="torchvision")
    stopped = create_trainer(config, tmp_path / "run")
    stop_at(stopped, 2, monkeypatch)
    stopped.fit()
    root = change(root)
    config = replace(config, data=replace(config.data, root=str(root)))
    if said is None:
        assert create_trainer(config, tmp_path / "run", resume=True).step == 2
        return
    with pytest.raises(ValueError, match=f"step-00000002 is from another training set than {root}: {said}"):
        create_trainer(config, tmp_path / "run", resume=True)


@each_loader
def test_a_bad_file_is_named_and_training_continues(root: Path, tmp_path: Path, loader: str) -> None:
    (root / BAD).write_bytes(b"not an image")
    trainer = create_trainer(run_config(root, loader=loader), tmp_path / "run")
    with pytest.warns(data.BadImageWarning, match=rf"{BAD} cannot be used .*replaced by .*004\.JPEG"):
        trainer.fit()
    assert trainer.finished and trainer.stopped_because is None


@each_loader
def test_a_bad_file_ends_the_run_with_a_checkpoint_if_it_should(root: Path, tmp_path: Path, loader: str) -> None:
    (root / BAD).write_bytes(b"not an image")
    config = run_config(root, loader=loader, on_bad_image="stop")
    trainer = create_trainer(config, tmp_path / "run")
    with pytest.warns(data.BadImageWarning, match=f"{BAD} cannot be used"):
        trainer.fit()
    order = [batch.tolist() for batch in trainer.train_loader.batches.of_epoch(0)]
    bad_step = next(step for step, batch in enumerate(order, start=1) if 3 in batch)
    assert trainer.step == bad_step and trainer.last_checkpoint is not None
    assert trainer.last_checkpoint.name.endswith(str(bad_step))
    assert f"{root / BAD} cannot be used (data.on_bad_image stop)" in str(trainer.stopped_because)


def arguments(root: Path, out: Path) -> list[str]:
    options = ["--data.name", "imagenet", "--data", str(root), "--data.size", "16", "--data.workers", "1"]
    return ["train", *options, "--m", "6", "--attack.k", "3", "--epochs", "1", "--device", "cpu", "--out", str(out)]


@needs_dali
def test_the_command_line_says_which_loader_and_why_it_stopped(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (root / BAD).write_bytes(b"not an image")
    assert main([*arguments(root, tmp_path / "run"), "--epochs", "2", "--data.on_bad_image", "stop"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if line.startswith("data.loader auto: dali, because DALI ")]
    assert [line for line in lines if line.startswith(f"fastadv train: warning: {root / BAD} cannot be used")]
    assert lines[-2].startswith(
        f"fastadv train: stopped, because {root / BAD} cannot be used (data.on_bad_image stop); "
        f"fastadv data check {root} finds all such files"
    )
    assert "--resume" in lines[-2] and lines[-1].startswith("cost: ")


def test_a_bad_file_in_the_last_iteration_does_not_make_a_failure_of_the_run(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained_on = create_trainer(run_config(root, loader="torchvision"), tmp_path / "other").train_loader
    *_, (last, *_) = trained_on.batches.of_epoch(0)  # type: ignore[attr-defined]
    bad = root / "train" / data.scan(root)["train"].key(int(last))
    bad.write_bytes(b"not an image")
    options = ["--data.on_bad_image", "stop", "--data.flip", "--data.loader", "torchvision"]
    assert main([*arguments(root, tmp_path / "run"), *options]) == 0
    said = capsys.readouterr().err
    assert f"{bad} cannot be used" in said and "next: fastadv evaluate" in said and "stopped, because" not in said


def training_images_vanish(root: Path) -> None:
    (root / "train").rename(root / "elsewhere")


def val_images_break(root: Path) -> None:
    for image in (root / "val").glob("*/*"):
        image.write_bytes(b"")


@pytest.mark.filterwarnings("ignore::fastadv.data.BadImageWarning")
@each_loader
@pytest.mark.parametrize(
    ("happens", "said"),
    [
        (training_images_vanish, "24 images in a row cannot be used, from "),
        (val_images_break, "there is no test accuracy: no image of the test set could be used"),
    ],
)
def test_a_data_set_that_fails_in_a_run_ends_it_by_a_line(
    root: Path,
    tmp_path: Path,
    loader: str,
    happens: Callable[[Path], None],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    train_step = Trainer.train_step

    def and_it_happens(trainer: Trainer, *minibatch: Any) -> None:
        train_step(trainer, *minibatch)
        if trainer.step == 1:
            happens(root)

    monkeypatch.setattr(Trainer, "train_step", and_it_happens)
    assert main([*arguments(root, tmp_path / "run"), "--epochs", "2", "--data.loader", loader]) == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"fastadv train: {said}")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            ["--data", "DIR", "--data.size", "64"],
            "data.name digits does not use data.root, data.size: images in files are --data.name imagenet",
        ),
        (["--data", "DIR", "--data.name", "imagenet", "--data.crop_padding", "4"], "does not use data.crop_padding"),
        (
            ["--data", "DIR", "--data.name", "imagenet", "--m", "25"],
            "the training set has 24 images, fewer than a batch",
        ),
        (["--data.name", "imagenet"], "imagenet is read from a folder. Pass it with --data DIR (root); it must hold"),
    ],
)
def test_mistakes_are_one_line(
    options: list[str], said: str, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [str(root) if option == "DIR" else option for option in options]
    for resume in ([], ["--resume", "auto"]):
        assert main(["train", *options, "--out", str(tmp_path / "run"), "--data.loader", "auto", *resume]) == 2
        (line,) = (line for line in capsys.readouterr().err.splitlines() if not line.startswith("data.loader auto"))
        assert line.startswith("fastadv train: ") and said in line
        assert not (tmp_path / "run").exists()


def test_what_a_resumed_run_was_given_is_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["--out", str(tmp_path / "run")]
    small = ["--epochs", "1", "--model.options.width", "0.1", "--device", "cpu", "--m", "256"]
    assert main(["train", *small, *out]) == 0
    assert main(["train", *out, "--resume"]) == 0
    assert main(["train", *out, "--resume", "--data.workers", "2"]) == 2
    assert "data.name digits does not use data.workers" in capsys.readouterr().err


def test_auto_says_when_dali_is_missing(
    root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(module: str, *, extra: str) -> None:
        raise ModuleNotFoundError(f"pip install 'fastadv[{extra}]'")

    monkeypatch.setattr("fastadv.data.loaders.factory.require", missing)
    with caplog.at_level(logging.INFO, "fastadv"):
        trainer = create_trainer(run_config(root), tmp_path / "run")
    assert isinstance(trainer.train_loader, data.TorchvisionLoader)
    said = "data.loader auto: torchvision, because the faster DALI is not installed: pip install 'fastadv[dali]'"
    assert caplog.messages == [said]


def test_data_that_are_not_as_they_should_be_are_a_mistake_before_the_first_step(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (root / "train" / "empty").mkdir()
    assert main(arguments(root, tmp_path / "run")) == 2
    assert "no images (*.jpeg, *.jpg" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"loader": "pillow"}, r"data\.loader must be one of auto, dali, torchvision"),
        ({"on_bad_image": "ignore"}, r"data\.on_bad_image must be one of skip, stop"),
        ({"prefetch": 0}, r"data\.prefetch must be an integer of at least 1"),
        ({"least_area": 0}, r"data\.least_area must be a number above 0 and at most 1, got 0"),
    ],
)
def test_options_out_of_range_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DataConfig(**given)


def measure(command: str, run: Path, out: Path, *options: str) -> int:
    """Evaluate a run, or transfer its images to itself."""
    named = [str(run)] if command == "evaluate" else [f"A={run}", f"B={run}"]
    usual = ["--attacks", "step_ll", "--eps", "8", "--device", "cpu", "--batch-size", "5"]
    return main([command, *named, *usual, "--out", str(out), *options])


def evaluate(run: Path, out: Path, *options: str) -> int:
    return measure("evaluate", run, out, *options)


def test_evaluation_measures_each_image_once_and_again_when_files_change(root: Path, tmp_path: Path) -> None:
    run, out = tmp_path / "run", tmp_path / "out"
    assert main(arguments(root, run)) == 0
    assert evaluate(run, out) == evaluate(run, out) == 0
    records = [json.loads(line) for line in (out / "robustness.jsonl").read_text().splitlines()]
    assert [(r["attack"], r["n"], r["total"], r["classes"]) for r in records] == [
        ("clean", 24, 24, 3),
        ("step_ll", 24, 24, 3),
    ]
    assert evaluate(run, tmp_path / "some", "--limit", "6") == 0
    image = root / "val" / "class0" / "000.JPEG"
    image.write_bytes(image.read_bytes() + bytes(1))
    assert evaluate(run, tmp_path / "out") == 0
    assert len((out / "robustness.jsonl").read_text().splitlines()) == 4


def test_evaluation_does_not_count_what_it_did_not_see(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, bad = tmp_path / "run", root / "val" / "class1" / "002.JPEG"
    assert main(arguments(root, run)) == 0
    bad.write_bytes(b"not an image")
    assert evaluate(run, tmp_path / "out") == 1
    assert f"{bad} cannot be used" in capsys.readouterr().err
    assert main(["data", "check", str(root), "--workers", "1"]) == 1
    assert evaluate(run, tmp_path / "out") == 0
    records = [json.loads(line) for line in (tmp_path / "out" / "robustness.jsonl").read_text().splitlines()]
    assert {(r["n"], r["total"]) for r in records} == {(23, 23)}


@pytest.mark.parametrize("command", ["evaluate", "transfer"])
@pytest.mark.parametrize("trained_with", ["dali", "torchvision"])
def test_evaluation_chooses_its_own_loader_and_says_which(
    command: str,
    trained_with: str,
    root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The loader of the run does not matter: another one may be installed where it is evaluated."""
    run = tmp_path / "run"
    assert main([*arguments(root, run), "--data.loader", trained_with]) == 0
    workers = []
    created = data.ImageLoader.__init__

    def create(loader: data.ImageLoader, *given: Any, **options: Any) -> None:
        created(loader, *given, **options)
        workers.append((type(loader).__name__, loader.workers))

    monkeypatch.setattr(data.ImageLoader, "__init__", create)

    def measured(out: str, *options: str) -> tuple[set[str], list[str]]:
        """The loaders in the records, and the lines that name one."""
        capsys.readouterr()
        assert measure(command, run, tmp_path / out, *options) == 0
        (file,) = (tmp_path / out).glob("*.jsonl")
        records = [json.loads(line) for line in file.read_text().splitlines()]
        said = [line for line in capsys.readouterr().err.splitlines() if "--loader" in line]
        return {record["versions"]["loader"].split()[0] for record in records}, said

    found, (line,) = measured("first")
    assert found == {"dali"} and line.startswith("--loader auto: dali, because DALI ")
    assert set(workers) == {("DaliLoader", len(os.sched_getaffinity(0)))}  # the machine's cores, not the run's one
    assert measured("second", "--loader", "torchvision", "--workers", "0") == ({"torchvision"}, [])
    assert workers[-1] == ("TorchvisionLoader", 0)

    monkeypatch.setitem(sys.modules, "nvidia.dali", None)  # as if it were not installed
    found, (line,) = measured("third")
    assert found == {"torchvision"} and line.startswith("--loader auto: torchvision, because the faster DALI is not")
    assert measure(command, run, tmp_path / "none", "--loader", "dali") == 2
    assert "pip install 'fastadv[dali]'" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_evaluation_reads_the_test_images_alone(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, out = tmp_path / "run", tmp_path / "out"
    (root / BAD).write_bytes(b"not an image")
    assert main(["data", "check", str(root), "--workers", "1"]) == 1
    assert main(arguments(root, run)) == 0
    capsys.readouterr()
    assert evaluate(run, out) == 0
    assert "leaves out" not in capsys.readouterr().err
    (root / "train").rename(root / "elsewhere")
    assert evaluate(run, tmp_path / "again") == 0
    (root / manifest.FILE).unlink()
    (root / "val" / "class1").rename(root / "val" / "dogs")
    assert evaluate(run, out) == 2
    said = capsys.readouterr().err
    assert f"run was trained on other classes than those of imagenet in {root}: " in said
    assert "class 1 was 'class1' and is 'class2', class 2 was 'class2' and is 'dogs'" in said
    assert main([*arguments(root, run), "--resume"]) == 2
    assert f"{root} has no train/: it must hold train/CLASS/IMAGE and val/CLASS/IMAGE" in capsys.readouterr().err


def test_networks_that_are_shown_images_differently_share_no_table(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, size in (("a", "16"), ("b", "20")):
        assert main([*arguments(root, tmp_path / name), "--data.size", size]) == 0
    assert main(["evaluate", str(tmp_path / "a"), str(tmp_path / "b"), "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert "size 16 for a, size 20 for b; evaluate them with separate commands\n" in said
