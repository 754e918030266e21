"""Folders of transformers: what their image processors do, and networks loaded without code."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from fastadv import PixelSpace
from fastadv.models.hf_folder import hf_input, load_hf

HALF = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
TO_UNIT = {"do_rescale": True, "rescale_factor": 1 / 255}


def folder(path: Path, **config: Any) -> Path:
    path.mkdir(exist_ok=True)
    (path / "preprocessor_config.json").write_text(json.dumps(config))
    return path


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (
            {"image_processor_type": "ViTImageProcessor", "size": {"height": 224, "width": 224}, "resample": 2, **HALF},
            (224, 1.0, False, "bilinear", PixelSpace.symmetric()),
        ),
        (
            {"feature_extractor_type": "ViTFeatureExtractor", "size": 224, **HALF, **TO_UNIT, "do_normalize": False},
            (224, 1.0, False, "bilinear", PixelSpace.unit()),
        ),
        (
            {"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 224}, "resample": 3, **HALF},
            (224, 224 / 256, True, "bicubic", PixelSpace.symmetric()),
        ),
        (
            {"image_processor_type": "ConvNextImageProcessorFast", "size": {"shortest_edge": 384}, **HALF},
            (384, 1.0, False, "bilinear", PixelSpace.symmetric()),
        ),
        (
            {
                "image_processor_type": "BitImageProcessor",
                "size": {"shortest_edge": 256},
                "crop_size": {"height": 224, "width": 224},
                "do_center_crop": True,
                "resample": 3,
                "image_mean": [0.485, 0.456, 0.406],
                "image_std": [0.229, 0.224, 0.225],
            },
            (224, 224 / 256, True, "bicubic", PixelSpace.imagenet()),
        ),
        (
            {
                "image_processor_type": "DeiTImageProcessor",
                "size": {"height": 256, "width": 256},
                "crop_size": 224,
                "do_center_crop": True,
                "do_rescale": False,
                "do_normalize": False,
            },
            (224, 224 / 256, False, "bilinear", PixelSpace.raw()),
        ),
        (
            {"image_processor_type": "ViTImageProcessor", "size": 32, "rescale_factor": 1 / 127.5, **HALF},
            (32, 1.0, False, "bilinear", None),
        ),
    ],
)
def test_what_a_processor_does(tmp_path: Path, config: dict[str, Any], expected: tuple[Any, ...]) -> None:
    known = hf_input(folder(tmp_path / "net", **config))
    assert (known.size, known.central, known.keep_aspect, known.interpolation, known.space) == expected
    assert known.source == str(tmp_path / "net" / "preprocessor_config.json") and not known.unsupported


def test_processors_that_are_not_known_here(tmp_path: Path) -> None:
    known = hf_input(folder(tmp_path / "net", image_processor_type="EfficientNetImageProcessor", size=224, **HALF))
    assert known.space is None and known.size is None
    assert known.unsupported == "the image processor EfficientNetImageProcessor"
    assert hf_input(tmp_path).space is None  # without the file


@pytest.mark.parametrize(
    "config",
    [
        [],
        {"image_processor_type": "ViTImageProcessor", "size": 224},
        {"image_processor_type": "ViTImageProcessor", "size": {"height": 224, "width": 192}, **HALF},
        {"image_processor_type": "BitImageProcessor", "size": {"shortest_edge": 192}, "crop_size": 224, **HALF},
        {"image_processor_type": "BitImageProcessor", "size": {"shortest_edge": 192}, **HALF},
        {"image_processor_type": "ViTImageProcessor", "size": 224, "image_mean": [0.5], "image_std": [0]},
    ],
)
def test_processors_whose_configuration_is_refused(tmp_path: Path, config: Any) -> None:
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"preprocessor_config.json: not a valid configuration of an image processor"):
        hf_input(tmp_path)


def test_without_transformers_and_without_a_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileNotFoundError, match=r"it has no config\.json"):
        load_hf(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ModuleNotFoundError, match=r"needs transformers, .*: pip install transformers"):
        load_hf(tmp_path)


def test_a_network_of_transformers(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    config = transformers.ViTConfig(
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        image_size=16,
        patch_size=8,
        num_labels=3,
    )
    saved = transformers.ViTForImageClassification(config).eval()
    saved.save_pretrained(tmp_path / "net")
    images = torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        assert torch.equal(load_hf(tmp_path / "net")(images).logits, saved(images).logits)
    transformers.ViTModel(config).save_pretrained(tmp_path / "body")
    with pytest.raises(ValueError, match=r"body: missing weights, which would be random: classifier.bias, classifier."):
        load_hf(tmp_path / "body")
    (tmp_path / "net" / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(ValueError, match="transformers cannot load a network from it"):
        load_hf(tmp_path / "net")
