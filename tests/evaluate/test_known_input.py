"""How networks from files are shown images: what the libraries and the files say, what is asked for, what is said."""

from __future__ import annotations

import json
import logging
import os
from argparse import Namespace
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from fastadv import PixelSpace, models
from fastadv.cli import evaluate as evaluate_cli
from fastadv.cli.image_options import log_input, merge_image_options
from fastadv.cli.model_specs import load_subjects, parse_space
from fastadv.evaluate import read_records
from fastadv.evaluate.records import Record
from fastadv.models.known_input import DATA_OPTIONS, KnownInput, known_input
from fastadv.models.weight_files import WeightFile
from fastadv.train import DataConfig
from tests.data.pictures import write_data_set
from tests.evaluate.test_evaluate_cli import save_run
from tests.evaluate.test_model_specs import options


def known(network: str, args: Any = None, path: Path = Path("w.pth")) -> KnownInput:
    return known_input(network, path, WeightFile({}, "state_dict", (), {} if args is None else {"args": args}))


OF_TIMM = {"input_size": None, "img_size": None, "mean": None, "std": None, "interpolation": "", "crop_pct": None}
SMALL = {**OF_TIMM, "img_size": 64, "interpolation": "bilinear", "crop_pct": 1.0, "mean": [0.5], "std": [0.5]}
SMALL_18 = {"model": "resnet18", **SMALL}


@pytest.mark.parametrize(
    ("network", "args", "expected"),
    [
        # A name alone says nothing of what the weights were trained on.
        ("timm/resnet18", None, (None, None, None, None, None)),
        ("torchvision/resnet18", None, (None, None, None, None, None)),
        ("small_cnn", None, (None, None, None, None, None)),
        ("timm/test_vit", None, (160, None, None, None, None)),  # others do not fit it
        ("timm/resnet18.a1_in1k", None, (224, 224 / 235, True, "bicubic", PixelSpace.imagenet())),
        ("timm/resnet18.tv_in1k", None, (224, 224 / 256, True, "bilinear", PixelSpace.imagenet())),
        ("inception_v4", Namespace(model="inception_v4", **OF_TIMM), (299, 299 / 341, True, "bicubic", "symmetric")),
        ("timm/resnet18", Namespace(model="resnet18", **SMALL), (64, 1.0, True, "bilinear", "symmetric")),
        ("timm/resnet18", {"model": "resnet18.tv_in1k", **OF_TIMM}, (224, 0.875, True, "bilinear", "imagenet")),
        ("timm/resnet18", SMALL_18 | {"crop_mode": "squash"}, (64, 1.0, False, "bilinear", "symmetric")),
        ("timm/resnet18", SMALL_18 | {"interpolation": "lanczos"}, (64, 1.0, True, None, "symmetric")),
        ("timm/resnet18", {"model": "resnet34", **SMALL}, (None, None, None, None, None)),
        ("torchvision/resnet50.IMAGENET1K_V2", None, (224, 224 / 232, True, "bilinear", PixelSpace.imagenet())),
        ("torchvision/inception_v3.IMAGENET1K_V1", None, (299, 299 / 342, True, "bilinear", "symmetric")),
        (
            "torchvision/resnet18",
            Namespace(model="resnet18", val_crop_size=64, val_resize_size=80, interpolation="bicubic"),
            (64, 0.8, True, "bicubic", "imagenet"),
        ),
    ],
)  # fmt: skip
def test_what_is_known(network: str, args: Any, expected: tuple[Any, ...]) -> None:
    found = known(network, args)
    data_options = (found.size, found.central, found.keep_aspect, found.interpolation)
    assert data_options == pytest.approx(expected[:4], abs=1e-12)
    space = expected[4]
    assert found.space == (getattr(PixelSpace, space)() if isinstance(space, str) else space)
    assert ("lanczos" in found.unsupported) == ("lanczos" in str(args))


@pytest.mark.parametrize(
    ("network", "args", "message"),
    [
        ("timm/resnet18.a0", None, r"timm/resnet18\.a0: Invalid pretrained tag \(a0\)"),
        ("torchvision/resnet18.V1", None, "torchvision/resnet18 has no weights 'V1'; it has IMAGENET1K_V1"),
        ("timm/resnet18", SMALL_18 | {"img_size": 10**9}, "of 1000000000 x 1000000000 pixels"),
        ("timm/resnet18", SMALL_18 | {"img_size": "64"}, "not a valid timm configuration"),
        ("timm/resnet18", SMALL_18 | {"gp": "max"}, "describe a network that cannot be created here: gp max"),
        ("timm/resnet18", SMALL_18 | {"mean": ["x"]}, "not a valid timm configuration"),
    ],
)
def test_what_cannot_be(network: str, args: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        known(network, args)


def test_timms_file_beside_the_weights(tmp_path: Path) -> None:
    config = {"architecture": "resnet18", "pretrained_cfg": {"input_size": [3, 96, 96], "mean": [0, 0, 0]}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert known("timm/resnet18", path=tmp_path / "w.safetensors").size == 96
    assert known("timm/resnet34", path=tmp_path / "w.safetensors").size is None
    (tmp_path / "config.json").write_text("[" * 100_000)
    assert known("timm/resnet18", path=tmp_path / "w.safetensors").size is None


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("gone")], ids=["pipe", "link to nothing"])
def test_a_file_beside_the_weights_that_cannot_be_read_is_an_error(
    make: Callable[[Path], None], tmp_path: Path
) -> None:
    """Else images would be shown otherwise than it says."""
    make(tmp_path / "config.json")
    with pytest.raises(OSError, match=r"config\.json"):
        known("timm/resnet18", path=tmp_path / "w.safetensors")


def test_weights_of_a_checkpoint_know_more(tmp_path: Path) -> None:
    """Their network may have another activation, which weights do not show."""
    run = save_run(tmp_path / "run")
    (weights,) = run.glob("checkpoints/*/model.safetensors")
    with pytest.raises(ValueError, match=rf"is part of a checkpoint, .* pass {weights.parent} instead$"):
        load_subjects([f"small_cnn@{weights}"], options("--dataset", "digits", "--space", "unit"))


def test_what_else_may_not_be_as_in_training(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    torch.save(models.create("small_cnn", num_classes=10, in_channels=1).state_dict(), tmp_path / "w.pth")
    with caplog.at_level(logging.INFO):
        load_subjects([f"small_cnn@{tmp_path / 'w.pth'}"], options("--dataset", "digits", "--space", "unit"))
        log_input("v3", "torchvision/inception_v3", KnownInput(), PixelSpace.imagenet(), DataConfig(), in_files=False)
    assert caplog.messages == [
        "w: input is PixelSpace.unit()",
        "w: small_cnn is created with default options, since the file does not say which it had",
        "v3: input is PixelSpace.imagenet()",
        "v3: inception_v3 expects --space symmetric, got PixelSpace.imagenet()",
    ]


V3 = "torchvision/inception_v3"
THREE_EQUAL = parse_space("0.5,0.5,0.5/0.5,0.5,0.5")
BY_SCRIPT = KnownInput(source="the script", space=PixelSpace.imagenet())
LANCZOS = KnownInput(source="the script", unsupported="interpolation 'lanczos'")


@pytest.mark.parametrize(
    ("network", "known", "space", "in_files", "warnings"),
    [
        (V3, KnownInput(), THREE_EQUAL, True, []),
        (V3, KnownInput(), PixelSpace.normalized(0.5, 0.25), True, ["expects --space symmetric"]),
        (V3, BY_SCRIPT, PixelSpace.imagenet(), True, []),
        (V3, BY_SCRIPT, PixelSpace.symmetric(), True, ["the script says otherwise: PixelSpace.imagenet()"]),
        ("timm/resnet18", KnownInput(space=PixelSpace.symmetric()), THREE_EQUAL, True, []),
        ("timm/resnet18", KnownInput(space=PixelSpace(127.5, 127.5, upper=250)), THREE_EQUAL, True, ["otherwise"]),
        ("timm/resnet18", LANCZOS, PixelSpace.unit(), True, ["otherwise: interpolation 'lanczos'"]),
        ("timm/resnet18", LANCZOS, PixelSpace.unit(), False, []),
    ],
)
def test_what_is_the_same_is_no_reason_to_warn(
    caplog: pytest.LogCaptureFixture,
    network: str,
    known: KnownInput,
    space: PixelSpace,
    in_files: bool,
    warnings: list[str],
) -> None:
    log_input("w", network, known, space, DataConfig(name="imagenet"), in_files=in_files)
    assert len(caplog.messages) == len(warnings)
    assert all(said in message for said, message in zip(warnings, caplog.messages, strict=True))


@pytest.fixture
def photographs(tmp_path: Path) -> list[str]:
    write_data_set(tmp_path, per_class=1, classes=2)
    return ["--dataset", "imagenet", "--data", str(tmp_path), "--loader", "torchvision", "--workers", "0"]


def saved(path: Path, **args: Any) -> str:
    weights = models.create("timm/test_resnet", num_classes=2).state_dict()
    torch.save({"state_dict": weights, **({"args": Namespace(model="test_resnet", **args)} if args else {})}, path)
    return f"timm/test_resnet@{path}"


UNKNOWN = r"--size is needed for w: how many pixels .* pass timm/test_resnet\.r160_in1k@FILE: their images have 160"


def test_a_size_that_is_not_known_is_asked_for(tmp_path: Path, photographs: list[str]) -> None:
    """It was 299, and a network of 64 pixels had a third of its accuracy."""
    text = saved(tmp_path / "w.pth")
    with pytest.raises(ValueError, match=UNKNOWN):
        load_subjects([text], options(*photographs, "--space", "unit"))
    loaded = load_subjects([text], options(*photographs, "--space", "unit", "--size", "64"))
    assert loaded.config.preprocessing.shown == "64 px, bilinear, the central 0.875 of both sides"


def test_what_the_file_says_is_used_and_said(
    tmp_path: Path, photographs: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    text = saved(tmp_path / "w.pth", **SMALL)
    with caplog.at_level(logging.INFO):
        loaded = load_subjects([text], options(*photographs))
    shown = "64 px, bilinear, the central 1 of the shorter side"
    assert loaded.config.preprocessing.shown == shown
    assert loaded.subjects[0].space == PixelSpace.symmetric()
    assert caplog.messages == [
        f"w: input is images of {shown}, PixelSpace.symmetric(); from the training options in {tmp_path}/w.pth"
    ]
    given = options(*photographs, "--size", "32", "--no-keep-aspect", "--space", "unit")
    loaded = load_subjects([text], given)
    assert loaded.config.preprocessing.shown == "32 px, bilinear, the central 1 of both sides"
    assert caplog.messages[-1].endswith(
        "w.pth says otherwise: size 64 (not 32), keep_aspect True (not False), "
        "PixelSpace.symmetric() (not PixelSpace.unit())"
    )


def test_files_that_are_shown_images_in_different_ways(tmp_path: Path, photographs: list[str]) -> None:
    texts = [saved(tmp_path / "a.pth", **SMALL), saved(tmp_path / "b.pth", **{**SMALL, "img_size": 32})]
    with pytest.raises(ValueError, match=r"cannot share a table: size 64 for a, size 32 for b; .* give --size$"):
        load_subjects(texts, options(*photographs))
    assert load_subjects(texts, options(*photographs, "--size", "48")).config.size == 48


RUN = DataConfig(name="imagenet")
OTHERWISE = KnownInput(size=RUN.size, central=0.9, keep_aspect=True, interpolation="bicubic")
RUN_WAYS = {way: getattr(RUN, way) for way in DATA_OPTIONS}
FOR_FILES = "--no-keep-aspect is only for models from files: the run run uses data.keep_aspect True"


@pytest.mark.parametrize(
    ("runs", "given", "message"),
    [
        ([RUN], [], ", or give --central 0.875 --no-keep-aspect --interpolation bilinear as in the run"),
        ([RUN, RUN], ["--central", "0.875"], ", or give --no-keep-aspect --interpolation bilinear as in the runs"),
        ([replace(RUN, keep_aspect=True)], ["--no-keep-aspect"], FOR_FILES),
        ([RUN, replace(RUN, keep_aspect=True)], [], "; evaluate them with separate commands"),
        ([], [], ", or give --central --[no-]keep-aspect --interpolation"),
    ],
)
def test_the_options_that_make_the_ways_one_are_said(runs: list[DataConfig], given: list[str], message: str) -> None:
    named = {f"run{i or ''}": run for i, run in enumerate(runs)}
    files = {"w": OTHERWISE} | ({} if runs else {"v": KnownInput(**RUN_WAYS)})
    with pytest.raises(ValueError) as raised:
        merge_image_options(RUN, named, files, {}, options(*given))
    assert str(raised.value).endswith(message)
    if "as in the run" in message:
        more = message.split("give ")[1].split(" as ")[0].split()
        assert merge_image_options(RUN, named, files, {}, options(*given, *more)) == RUN


def test_images_in_memory_have_their_own_size(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    torch.save(
        {
            "state_dict": models.create("timm/test_resnet", num_classes=10, in_channels=1).state_dict(),
            "args": Namespace(model="test_resnet", **{**SMALL, "img_size": 32}),
        },
        tmp_path / "w.pth",
    )
    text = f"timm/test_resnet@{tmp_path / 'w.pth'}"
    with pytest.raises(ValueError, match=r"--size, --interpolation: .* those of digits are in memory"):
        load_subjects([text], options("--dataset", "digits", "--size", "8", "--interpolation", "bicubic"))
    assert load_subjects([text], options("--dataset", "digits")).subjects[0].space == PixelSpace.symmetric()
    assert "w was trained on images of 32 px, and those of digits are 8 x 8" in caplog.text


def test_records_and_tables_say_it(tmp_path: Path, photographs: list[str]) -> None:
    command = [saved(tmp_path / "w.pth", **SMALL), *photographs, "--attacks", "fgsm", "--eps", "8", "--limit", "2"]
    assert evaluate_cli.main([*command, "--device", "cpu", "--out", str(tmp_path / "out")]) == 0
    shown = "64 px, bilinear, the central 1 of the shorter side"
    assert {record.shown for record in read_records(tmp_path / "out/robustness.jsonl", Record)} == {shown}
    table = (tmp_path / "out/tables/robustness-fgsm.md").read_text()
    assert f"Images were shown at {shown}, in PixelSpace.symmetric()." in table
