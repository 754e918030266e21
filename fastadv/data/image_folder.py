"""Folders of images: ``train/<class>/<image>`` and ``val/<class>/<image>``."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastadv.data.image_source import Stamp

EXTENSIONS = (".jpeg", ".jpg", ".png", ".bmp", ".webp", ".tif", ".tiff")  # what both loaders decode
SPLITS = ("train", "val")
EXPECTED = "train/CLASS/IMAGE and val/CLASS/IMAGE, or shards (*.tar, TFRecord) in train/ and val/"


@dataclass(frozen=True, eq=False)
class ImageFolder:
    """Images below one folder, a folder for each class; the format is what the content says, not the name.

    Args:
        root: the folder.
        paths: [N] of bytes, relative to it, sorted: a list of a million strings would take ten times the memory, and
            be copied by each worker process as it is used.
        labels: [N] int64.
        classes: the names of the classes' folders, sorted.
        left_out: indices of images that are known to be bad.
    """

    root: Path
    paths: NDArray[np.bytes_] = field(repr=False)  # [N]
    labels: Tensor = field(repr=False)  # [N] int64
    classes: tuple[str, ...] = field(repr=False)
    left_out: frozenset[int] = field(default=frozenset(), repr=False)

    def __len__(self) -> int:
        return len(self.paths)

    def key(self, index: int) -> str:
        """The path below the folder."""
        return os.fsdecode(self.paths[index])

    def name(self, index: int) -> str:
        """The whole path."""
        return str(self._path(index))

    def read(self, index: int) -> bytes:
        """The file's content."""
        return self._path(index).read_bytes()

    def stamp(self, index: int) -> Stamp:
        """Of the file."""
        found = self._path(index).stat()
        return found.st_size, found.st_mtime_ns

    def _path(self, index: int) -> Path:
        return self.root / self.key(index)


def scan_image_folder(root: Path) -> tuple[ImageFolder, ImageFolder]:
    """The training and the validation images below ``root``, in the order of their paths, as torchvision has them.

    Raises:
        FileNotFoundError: no such folder, or no train/ or val/ in it.
        ValueError: no classes, a class without an image, or other classes in val/ than in train/; the message names
            them.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"{root} is not a folder: expected one that holds {EXPECTED}")
    missing = [f"{name}/" for name in SPLITS if not (root / name).is_dir()]
    if missing:
        raise FileNotFoundError(f"{root} has no {' and no '.join(missing)}: it must hold {EXPECTED}")
    train, val = (scan_class_folders(root / name) for name in SPLITS)
    if train.classes != val.classes:
        lacking = {name: sorted(set(other.classes) - set(own.classes)) for name, own, other in _pairs(train, val)}
        where = "; ".join(f"{name}/ lacks {_few(classes)}" for name, classes in lacking.items() if classes)
        raise ValueError(f"{root}: train/ and val/ must have the same class folders; {where}")
    return train, val


def _pairs(train: ImageFolder, val: ImageFolder) -> list[tuple[str, ImageFolder, ImageFolder]]:
    return [("train", train, val), ("val", val, train)]


def scan_class_folders(root: Path) -> ImageFolder:
    """The images in the folders of ``root``, one for each class.

    Raises:
        ValueError: no classes, or a class without an image.
    """
    with os.scandir(root) as entries:
        classes = sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
    if not classes:
        raise ValueError(f"{root} has no class folders: it must hold CLASS/IMAGE")
    images = [_images(root / name) for name in classes]
    empty = [name for name, files in zip(classes, images, strict=True) if not files]
    if empty:
        raise ValueError(
            f"{root}: no images (*{', *'.join(EXTENSIONS)}) in the class folders {_few(empty)}: put images there, or "
            f"delete the folders, in train/ and val/ alike"
        )
    paths = np.array([f for name, files in zip(classes, images, strict=True) for f in _below(name, files)])  # [N]
    counts = torch.tensor([len(files) for files in images])  # [K]
    labels = torch.arange(len(classes)).repeat_interleave(counts)  # [N]
    return ImageFolder(root, paths, labels, tuple(classes))


def _images(folder: Path) -> list[str]:
    """Paths relative to ``folder`` of the images in it and in folders below, sorted."""
    return sorted(file for file in _files(folder) if _is_image(os.path.basename(file)))


def count_others(source: ImageFolder) -> Counter[str]:
    """How many files in the class folders are no images by their names, for each ending; hidden ones do not count."""
    files = (os.path.basename(file) for name in source.classes for file in _files(source.root / name))
    return Counter(
        os.path.splitext(file)[1].lower() for file in files if not file.startswith(".") and not _is_image(file)
    )


def _files(folder: Path) -> Iterator[str]:
    """Paths relative to ``folder`` of the files in it and in folders below."""
    for above, _, files in os.walk(folder, followlinks=True):
        below = os.path.relpath(above, folder)
        yield from (os.path.normpath(os.path.join(below, file)) for file in files)


def _is_image(file: str) -> bool:
    return file.lower().endswith(EXTENSIONS) and not file.startswith(".")


def _below(name: str, files: list[str]) -> list[bytes]:
    return [os.fsencode(os.path.join(name, file)) for file in files]


def _few(names: list[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
