"""Image formats: all loaders read the same ones, and no program is started for others."""

from __future__ import annotations

import re
import subprocess
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import EpsImagePlugin, Image

import fastadv
from fastadv import data
from fastadv.cli import main
from fastadv.data import DaliLoader, ImageLoader, Preprocessing, TorchvisionLoader
from fastadv.data.transforms.decode import FORMATS, formats_here, reason_against
from fastadv.pixels import PixelSpace
from tests.data.loaders import each, needs_dali
from tests.data.pictures import encoded, picture, write_folder

PROGRAM = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 20 20\n%%EndComments\n(%stderr) run\nshowpage\n%%EOF\n"


def kinds() -> dict[str, bytes]:
    """Images in many formats and pixel types."""
    usual, grey = picture(60, 50), picture(60, 50).convert("L")
    modes = {
        "PNG": "1 L LA P RGBA I;16",
        "TIFF": "1 L LA P RGBA CMYK LAB I F",
        "GIF": "L P",
        "PPM": "L",
        "ICO": "P",
    }
    pictures = {
        (kind, mode): grey if mode in ("I", "F", "I;16") else usual for kind in modes for mode in modes[kind].split()
    }
    files = {f"{kind} {mode}": encoded(image.convert(mode), kind) for (kind, mode), image in pictures.items()}
    files |= {kind: encoded(usual, kind) for kind in FORMATS}
    files |= {f"TIFF {name}": encoded(usual, "TIFF", compression=name) for name in ("lzma", "tiff_lzw", "jpeg")}
    return files | {"MPO": encoded(usual, "MPO", save_all=True, append_images=[usual]), "EPS": PROGRAM, "QOI": b"qoif"}


def used(kind: type[ImageLoader], root: Path, **options: Any) -> tuple[list[int], torch.Tensor, list[str]]:
    """Indices that an evaluation uses, its images [n, 3, 16, 16], and its warnings about others."""
    source, said = data.scan(root, ["val"])["val"], []
    options = {"space": PixelSpace.raw(), "preprocessing": Preprocessing(size=16), "workers": kind is DaliLoader}
    loader = kind(source, 16, train=False, **options)
    loader.on_bad_image = lambda bad: said.append(f"{bad.name}: {bad.reason}")
    indices, images = [], []
    for batch, _ in loader.epoch(0):
        indices += loader.indices.tolist()
        images.append(batch)
    return indices, torch.cat(images), said


@needs_dali
def test_both_loaders_use_the_same_images(tmp_path: Path) -> None:
    """Those that data check accepts, whatever DALI supports: training with DALI must not lose images."""
    files = kinds()
    write_folder(tmp_path / "val", {"all": list(files.values())})
    good = [index for index, file in enumerate(files.values()) if reason_against(file) is None]
    (here, one, said), (there, other, also_said) = (used(kind, tmp_path) for kind in (TorchvisionLoader, DaliLoader))
    assert here == there == good and said == also_said
    names = list(files)
    refused = {names[index] for index in range(len(names)) if index not in good}
    assert refused == {"TIFF I", "TIFF F", "PPM L", "ICO P", "EPS", "QOI"}
    apart = {names[index]: float((a - b).abs().max()) for index, a, b in zip(good, one, other, strict=True)}
    assert {name for name, levels in apart.items() if levels > 1} == set()


@needs_dali
def test_what_dali_refuses_and_pillow_decodes_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For every format."""
    monkeypatch.setattr("fastadv.data.loaders.dali_loader.decoded_alike", lambda file: not file.startswith(b"P6"))
    write_folder(tmp_path / "val", {"all": [encoded(picture(20, 20), kind) for kind in ("JPEG", "GIF", "PNG")]})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        indices, images, said = used(DaliLoader, tmp_path)
    assert indices == [0, 1, 2] and said == []
    assert torch.allclose(images, used(TorchvisionLoader, tmp_path)[1], atol=1)


@pytest.fixture
def no_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    def started(*command: Any, **_: Any) -> None:
        pytest.fail(f"a program was started: {command}")

    monkeypatch.setattr(subprocess, "Popen", started)
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", started)


@each("kind")
@pytest.mark.usefixtures("no_programs")
def test_a_file_that_is_a_program_is_not_run(kind: type[ImageLoader], tmp_path: Path) -> None:
    write_folder(tmp_path / "val", {"all": [PROGRAM, encoded(picture(20, 20))]})
    indices, _, (said,) = used(kind, tmp_path)
    assert indices == [1] and said.endswith("it begins with b'%!PS-Ado'")


@pytest.mark.usefixtures("no_programs")
def test_nor_by_the_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_folder(tmp_path / "val", {"all": [PROGRAM]})
    assert main(["data", "check", str(tmp_path), "--workers", "1"]) == 1
    assert "not an image in a supported format" in capsys.readouterr().out


def test_images_are_opened_in_one_place() -> None:
    """With the list of formats; torchvision's own folders would try every format of Pillow."""
    package = Path(fastadv.__file__).parent
    sources = [*package.rglob("*.py"), *(package.parent / "benchmarks").rglob("*.py")]
    opening = re.compile(
        r"(?:\bImage|\bpillow|PIL\.Image\", extra=\"train\"\))\.open\(|default_loader|pil_loader|read_image\("
    )
    found = {path.name: len(opening.findall(path.read_text(encoding="utf-8"))) for path in sources}
    assert {name: count for name, count in found.items() if count} == {"decode.py": 1}
    assert all(
        "loader=" in call for path in sources for call in re.findall(r"datasets\.ImageFolder\(.*", path.read_text())
    )


def test_the_formats_are_those_that_the_documents_name() -> None:
    documented = (Path(fastadv.__file__).parents[1] / "docs" / "images.md").read_text(encoding="utf-8")
    names = {"JPEG2000": "JPEG 2000", "WEBP": "WebP"}
    assert all(names.get(name, name) in documented for name in FORMATS)
    assert set(formats_here()) == set(FORMATS)  # of Pillow as it is installed here


@each("kind")
def test_an_image_of_too_many_pixels_is_refused_before_memory_is_taken(
    kind: type[ImageLoader], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    small = [Image.fromarray(np.zeros((size, 20, 3), np.uint8)) for size in (49, 50, 51)]
    write_folder(tmp_path / "val", {"all": [encoded(image, "PNG") for image in small]})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        indices, _, (said,) = used(kind, tmp_path)
    assert indices == [0, 1] and "1020 pixels" in said and "limit of 1000 pixels" in said


@needs_dali
def test_no_limit_where_a_program_takes_pillows_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    write_folder(tmp_path / "val", {"all": [encoded(picture(20, 20))]})
    assert used(DaliLoader, tmp_path)[0] == [0]
