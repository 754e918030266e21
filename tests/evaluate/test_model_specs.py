from __future__ import annotations

import argparse
import re
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from fastadv import PixelSpace, data, models
from fastadv.cli import evaluate as evaluate_cli
from fastadv.cli import transfer as transfer_cli
from fastadv.cli.model_options import add_options
from fastadv.cli.model_specs import _code_of, load_subjects, parse_space
from fastadv.evaluate import read_records
from fastadv.evaluate.records import Record
from fastadv.evaluate.transfer import TransferRecord
from fastadv.models.specs import parse_spec
from tests.data.pictures import write_data_set
from tests.evaluate.test_evaluate_cli import DIGITS, save_run


def save_weights(path: Path, seed: int = 0, classes: int = 10, name: str = "timm/test_resnet") -> Path:
    torch.manual_seed(seed)
    torch.save(models.create(name, num_classes=classes, in_channels=1).state_dict(), path)
    return path


def options(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_options(parser)
    return parser.parse_args(arguments)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    return save_weights(tmp_path / "w.pth")


def test_a_file_of_weights_and_a_run_side_by_side(tmp_path: Path, weights: Path) -> None:
    run = save_run(tmp_path / "standard")
    weights = weights.rename(tmp_path / "w.pth.tar")
    texts = [str(run), f"timm/test_resnet@{weights}", f"C=timm/test_resnet@{weights}"]
    loaded = load_subjects(texts, options("--space", "symmetric", "--space", "C=0.5/0.25"))
    assert [subject.name for subject in loaded.subjects] == ["standard", "w", "C"]
    assert [subject.space for subject in loaded.subjects] == [
        PixelSpace.unit(),
        PixelSpace.symmetric(),
        PixelSpace.normalized(0.5, 0.25),
    ]
    assert (loaded.config.name, len(loaded.images)) == ("digits", 500)
    saved = torch.load(weights, weights_only=True)
    assert all(torch.equal(value, saved[name]) for name, value in loaded.subjects[1].model.state_dict().items())
    assert not any(subject.model.training for subject in loaded.subjects)
    run_id, *ids = (subject.fingerprint for subject in loaded.subjects)
    assert ids[0] == ids[1] != run_id


def test_equal_weights_of_two_kinds_of_network_are_two_networks(weights: Path) -> None:
    """Networks that differ in an activation function alone have the same names and shapes."""
    [made] = load_subjects([f"timm/test_resnet@{weights}"], options("--dataset", "digits", "--space", "unit")).subjects
    other = replace(made, code=_code_of(parse_spec(f"timm/test_resnet_gelu@{weights}")))
    assert made.code == _code_of(parse_spec(f"timm/test_resnet@{weights}"))
    assert made.fingerprint != other.fingerprint


def test_a_change_to_a_configuration_is_another_network(tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    codes = []
    for activation in ("gelu", "gelu", "relu"):
        config.write_text(f'{{"hidden_act": "{activation}"}}')
        codes.append(_code_of(parse_spec(f"hf/{tmp_path}")))
    assert codes[0] == codes[1] != codes[2] and codes[0]


@pytest.mark.parametrize(
    ("kept", "found", "message"),
    [
        (DIGITS, DIGITS, None),
        (
            DIGITS,
            (*DIGITS, "another"),
            "standard has 10 classes, and digits in DIR has 11: --data must hold the classes that",
        ),
        (
            DIGITS,
            (*DIGITS[:8], "9", "8"),
            "standard was trained on other classes than those of digits in DIR: class 8 was '8' and is '9', class 9 "
            "was '9' and is '8'. --data must hold the classes that it was trained on, by the same names",
        ),
        (
            DIGITS,
            ("1", *DIGITS[1:-3], "9", "8", "7"),
            "class 0 was '0' and is '1', class 7 was '7' and is '9', class 9 was '9' and is '7'. --data",
        ),
        (DIGITS, (*DIGITS[1:], "0"), "class 2 was '2' and is '3' and 7 more. --data must"),
    ],
)
def test_classes(
    kept: tuple[str, ...],
    found: tuple[str, ...],
    message: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = save_run(tmp_path / "standard", classes=kept)
    images = data.load("digits").test
    monkeypatch.setattr(data, "load_test", lambda *_: data.ImageSet(images.images, images.labels, found))
    if message is None:
        assert len(load_subjects([str(run)], options("--data", "DIR")).subjects) == 1
        return
    with pytest.raises(ValueError, match=re.escape(message)):
        load_subjects([str(run)], options("--data", "DIR"))


def test_shards_that_lack_the_last_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without names they are numbered up to the largest label of the validation images, if these are alone."""
    run = save_run(tmp_path / "standard", classes=DIGITS)
    monkeypatch.setattr(data, "load_test", lambda *_: SimpleNamespace(classes=DIGITS[:9]))
    whence = (
        r"the folders in val/, or the labels of shards, unless classes\.txt beside val/ names them all, one per line$"
    )
    with pytest.raises(ValueError, match=rf"has 9: .* trained on; the classes of images in files are {whence}"):
        load_subjects([str(run)], options("--data", "DIR"))


def test_folders_that_lack_a_class(tmp_path: Path) -> None:
    torch.save(models.create("timm/test_resnet", num_classes=3).state_dict(), tmp_path / "w.pth")
    write_data_set(tmp_path, per_class=2, classes=3)
    shutil.rmtree(tmp_path / "val" / "class1")
    given = options("--dataset", "imagenet", "--data", str(tmp_path), "--space", "imagenet", "--size", "32")
    texts = [f"timm/test_resnet@{tmp_path / 'w.pth'}"]
    with pytest.raises(
        ValueError, match=r"is \[3\] in .*\. imagenet has 2 classes; .* the folders in val/,.* classes\.txt"
    ):
        load_subjects(texts, given)
    (tmp_path / "classes.txt").write_text("class0\nclass1\nclass2\n")
    loaded = load_subjects(texts, given)
    assert loaded.images.labels.tolist() == [0, 0, 2, 2] and len(loaded.subjects) == 1


@pytest.mark.parametrize(
    ("text", "space"),
    [
        ("raw", PixelSpace.raw()),
        ("imagenet", PixelSpace.imagenet()),
        ("0.485,0.456,0.406/0.229,0.224,0.225", PixelSpace.imagenet()),
        ("0.5/0.5", PixelSpace.symmetric()),
    ],
)
def test_spaces(text: str, space: PixelSpace) -> None:
    assert parse_space(text) == space


@pytest.mark.parametrize("text", ["", "0.5", "0.5/", "a/b", "0.5/0.5/0.5", "nan/1", "Imagenet"])
def test_spaces_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match="--space must be raw, unit, symmetric, imagenet, or mean/std"):
        parse_space(text)


@pytest.mark.parametrize(
    ("texts", "given", "message"),
    [
        (["timm/test_resnet@{w}"], ["--space", "unit"], "models from files need --dataset"),
        (["timm/test_resnet@{w}"], ["--dataset", "digits"], "--space is needed for w: how were its training images"),
        (["timm/test_resnet@{w}", "{run}"], [], "--space is needed for w"),
        (["{run}"], ["--loader", "dali"], "--loader and --workers are for images in files, but digits is read into"),
        (["{run}"], ["--workers", "1"], "--loader and --workers are for images in files"),
        (
            ["{run}"],
            ["--space", "standard=unit"],
            "this is for models from files; a run of fastadv train knows its own",
        ),
        (["{run}"], ["--space", "unit"], "--space unit: this is for models from files"),
        (["A=timm/test_resnet@{w}"], ["--dataset", "digits", "--space", "unti"], r"got 'unti' \(did you mean unit\?\)"),
        (["{run}"], ["--dataset", "mnist"], "was trained on digits, but --dataset is mnist"),
        (["A=timm/test_resnet@{w}"], ["--dataset", "digits", "--space", "B=unit"], "no model from a file is named 'B'"),
        (["timm/test_resnett@{w}"], ["--dataset", "digits", "--space", "unit"], "did you mean test_resnet"),
        (
            ["timm/test_resnet@{w}", "x/w.pth=timm/test_resnet@{w}", "timm/test_resnet@{w}"],
            ["--dataset", "digits"],
            "two models",
        ),
        (["timm/test_resnet@{five}"], ["--dataset", "digits", "--space", "unit"], r"is \[5\] in the file and \[10\]"),
        (
            ["timm/test_vit@{vit}"],
            ["--dataset", "digits", "--space", "unit"],
            r"timm/test_vit: images .* do not fit: Input height \(8\) .*; choose another --size or --dataset",
        ),
        (["timm/test_resnet@{none}"], ["--dataset", "digits", "--space", "unit"], "there is no weights file"),
        (["nowhere"], [], "nowhere"),
    ],
)
def test_mistakes(tmp_path: Path, weights: Path, texts: list[str], given: list[str], message: str) -> None:
    places = {
        "w": weights,
        "run": save_run(tmp_path / "standard"),
        "vit": save_weights(tmp_path / "vit.pth", name="timm/test_vit"),
        "five": save_weights(tmp_path / "five.pth", classes=5),
        "none": tmp_path / "none.pth",
    }
    with pytest.raises((ValueError, OSError), match=message):
        load_subjects([text.format(**places) for text in texts], options(*given))


def test_evaluate_takes_files(tmp_path: Path, weights: Path) -> None:
    command = [f"Mine=timm/test_resnet@{weights}", "--dataset", "digits", "--space", "unit", "--limit", "20"]
    assert evaluate_cli.main([*command, "--attacks", "fgsm", "--eps", "8,16", "--out", str(tmp_path / "out")]) == 0
    records = read_records(tmp_path / "out/robustness.jsonl", Record)
    assert [(r.model, r.attack, r.eps) for r in records] == [
        ("Mine", "clean", 0.0),
        ("Mine", "fgsm", 8.0),
        ("Mine", "fgsm", 16.0),
    ]


def transfer(tmp_path: Path, *arguments: str) -> int:
    return transfer_cli.main([*arguments, "--limit", "20", "--device", "cpu", "--out", str(tmp_path / "out")])


def test_transfer_end_to_end(tmp_path: Path, weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = save_run(tmp_path / "standard")
    models_named = [f"A={run}", f"D=timm/test_resnet@{weights}"]
    command = [*models_named, "--space", "symmetric", "--attacks", "fgsm,iter_ll", "--eps", "8,16", "--curve", "D:A"]
    assert transfer(tmp_path, *command) == 0
    records = read_records(tmp_path / "out/transfer.jsonl", TransferRecord)
    assert len(records) == 2 * 2 * 2 * 2
    assert {(r.source_space, r.target_space) for r in records if r.source == "A" and r.target == "D"} == {
        ("PixelSpace.unit()", "PixelSpace.symmetric()")
    }
    files = sorted(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.md"))
    assert files == [f"tables/transfer-{what}-eps-{eps}.md" for what in ("error", "rate") for eps in (16, 8)]
    assert sorted(path.name for path in (tmp_path / "out/figures").iterdir()) == [
        f"transfer-{what}.{kind}" for what in ("error", "rate") for kind in ("png", "svg")
    ]
    assert "Transfer rate, eps = 16" in capsys.readouterr().out
    assert transfer(tmp_path, *command) == 0
    assert read_records(tmp_path / "out/transfer.jsonl", TransferRecord) == records


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{run}"], "transfer needs two models or more"),
        (["A={run}", "B={run}", "--curve", "A:C"], "--curve is SOURCE:TARGET, two of A, B, got 'A:C'"),
        (["A={run}", "B={run}", "--attacks", "fgsm:aux_weight=0.4"], "forward_with_aux"),
    ],
)
def test_transfer_mistakes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    run = save_run(tmp_path / "standard")
    assert transfer(tmp_path, *(argument.format(run=run) for argument in arguments)) == 2
    assert message in capsys.readouterr().err
