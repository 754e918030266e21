"""MNIST and data sets in its format: four IDX files, plain or gzipped."""

from __future__ import annotations

import gzip
import shutil
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from fastadv.data.in_memory.download import download_into, missing_files
from fastadv.data.in_memory.image_set import ImageData, ImageSet
from fastadv.utils.optional_deps import require

_IMAGES, _LABELS = "{}-images-idx3-ubyte", "{}-labels-idx1-ubyte"
_SPLITS = {"train": "train", "test": "t10k"}
_FILES = [pattern.format(prefix) for prefix in _SPLITS.values() for pattern in (_IMAGES, _LABELS)]
_DAMAGED_GZIP = (EOFError, gzip.BadGzipFile, zlib.error)
_DAMAGED_IDX = (AssertionError, KeyError, RuntimeError, TypeError, ValueError)  # what torchvision's reader raises


def load_mnist_like(name: str, class_name: str, root: Path, download: bool) -> ImageData:
    """Read ``torchvision.datasets.<class_name>`` from torchvision's layout below ``root``, or from ``root`` itself.

    Files are located here and only parsed by torchvision: its data-set classes read neither a folder of bare files nor
    ``.gz``, and do not say which file is damaged.
    """
    dataset = getattr(require("torchvision.datasets", extra="train"), class_name)
    folders = [root / class_name / "raw", root]
    files = _find(folders)
    if files is None and download:
        download_into(root, name, dataset)
        files = _find(folders)
    if files is None:
        raise missing_files(name, [f"{file}[.gz]" for file in _FILES], {folder: _missing(folder) for folder in folders})
    _refuse_namesake(name, class_name, files)
    classes = tuple(dataset.classes)
    return ImageData(**{split: _read_split(files, prefix, classes) for split, prefix in _SPLITS.items()})


def _path(folder: Path, file: str) -> Path | None:
    """Path of the file, plain or gzipped; None if there is none."""
    return next((path for path in (folder / file, folder / f"{file}.gz") if path.is_file()), None)


def _missing(folder: Path) -> list[str]:
    return [f"{file}[.gz]" for file in _FILES if _path(folder, file) is None]


def _find(folders: list[Path]) -> dict[str, Path] | None:
    """Paths of the four files in the first folder that has them all."""
    for folder in folders:
        found = {file: path for file in _FILES if (path := _path(folder, file)) is not None}
        if len(found) == len(_FILES):
            return found
    return None


def _refuse_namesake(name: str, class_name: str, files: dict[str, Path]) -> None:
    """Refuse the published archives of another data set: all in this format use the same file names."""
    datasets = require("torchvision.datasets", extra="train")
    for other in {"MNIST", "FashionMNIST", "KMNIST"} - {class_name}:
        for archive, md5 in getattr(datasets, other).resources:
            path = files[Path(archive).stem]
            if path.name == archive and datasets.utils.check_integrity(path, md5):
                raise ValueError(f"{path} is a file of {other}, not of {name}: check the name and the folder")


def _read_split(files: dict[str, Path], prefix: str, classes: tuple[str, ...]) -> ImageSet:
    reader = require("torchvision.datasets.mnist", extra="train")
    images_path, labels_path = files[_IMAGES.format(prefix)], files[_LABELS.format(prefix)]
    images = _read(images_path, reader.read_image_file)  # [N, H, W]
    labels = _read(labels_path, reader.read_label_file)  # [N]
    try:
        return ImageSet(images[:, None], labels, classes)
    except ValueError as error:
        raise ValueError(f"{images_path} and {labels_path} do not fit together: {error}") from error


def _read(path: Path, reader: Callable[[Path], Tensor]) -> Tensor:
    """Read an IDX file by torchvision, which opens plain files only: a ``.gz`` is unpacked first."""
    try:
        if path.suffix != ".gz":
            return reader(path)
        with tempfile.TemporaryDirectory() as folder:
            plain = Path(folder) / path.stem
            with gzip.open(path) as packed, plain.open("wb") as unpacked:
                shutil.copyfileobj(packed, unpacked)
            return reader(plain)
    except (*_DAMAGED_GZIP, *_DAMAGED_IDX) as error:
        raise ValueError(
            f"{path} is damaged, or is not an IDX file ({type(error).__name__}: {error}); "
            f"delete it and download it again"
        ) from error
