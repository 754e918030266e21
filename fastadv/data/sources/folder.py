"""Folders of images: ``train/<class>/<image>`` and ``val/<class>/<image>``."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastadv.data.sources.base import MOST_BYTES, Stamp
from fastadv.data.sources.class_names import CLASSES_FILE as CLASSES_FILE  # which others take from here
from fastadv.data.sources.class_names import hint_on_alike, remark_on_alike, remark_on_numbers
from fastadv.data.sources.folder_walk import Found, files_below, is_hidden, leads_to_folder
from fastadv.utils.regular_files import read_regular
from fastadv.utils.stacklevel import user_stacklevel
from fastadv.utils.text import counted, few, printable

EXTENSIONS = (".jpeg", ".jpg", ".png", ".bmp", ".webp", ".tif", ".tiff")  # names alone: decoding.FORMATS are read
SPLITS = ("train", "val")


@dataclass(frozen=True, eq=False)
class ImageFolder:
    """Images below one folder, a folder for each class; the format is what the content says, not the name.

    Args:
        root: the folder.
        paths: [N] of bytes, relative to it, sorted: a list of a million strings would take ten times the memory, and
            be copied by each worker process as it is used.
        labels: [N] int64.
        classes: the names of the classes' folders, sorted or as in classes.txt, which may name more.
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
        """The whole path, as it can be printed."""
        return printable(str(self._path(index)))

    def read(self, index: int) -> bytes:
        """The file's content."""
        return read_regular(self._path(index), MOST_BYTES)

    def stamp(self, index: int) -> Stamp:
        """Of the file."""
        found = self._path(index).stat()
        return found.st_size, found.st_mtime_ns

    def _path(self, index: int) -> Path:
        return self.root / self.key(index)


SHARDS = "shards named *.tar, *.tfrecord or NAME-00000-of-00010"


def expected(splits: Sequence[str] = SPLITS) -> str:
    """What a folder of images must hold of these splits."""
    folders = " and ".join(f"{name}/CLASS/IMAGE" for name in splits)
    return f"{folders}, or shards (*.tar, TFRecord) in {' and '.join(f'{name}/' for name in splits)}"


def scan_image_folder(
    root: Path, splits: Sequence[str] = SPLITS, classes: Sequence[str] = ()
) -> dict[str, ImageFolder]:
    """The images of these splits below ``root``, in the order of their paths, as torchvision has them.

    Args:
        root: the folder.
        splits: those that are wanted.
        classes: all of them, in order, of which a split may lack some; empty for the folders that there are.

    Raises:
        FileNotFoundError: no such folder, or a split is not in it.
        ValueError: no classes, a class without an image, or other classes in one split than in another or than in
            ``classes``; the message names them.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"{root} is not a folder: expected one that holds {expected(splits)}")
    missing = [f"{name}/" for name in splits if not (root / name).is_dir()]
    if missing:
        raise FileNotFoundError(f"{root} has no {' and no '.join(missing)}: it must hold {expected(splits)}")
    found = {name: scan_class_folders(root / name, classes) for name in splits}
    every = {name for source in found.values() for name in source.classes}
    lacking = {name: sorted(every - set(source.classes)) for name, source in found.items()}
    if any(lacking.values()):
        where = "; ".join(f"{name}/ lacks {few(names)}" for name, names in lacking.items() if names)
        raise ValueError(
            f"{root}: train/ and val/ must have the same class folders, unless {CLASSES_FILE} beside them names all "
            f"classes, a line each; {where}{hint_on_alike(every)}"
        )
    if not classes:
        _mention_names(root, sorted(every))
    return found


def _mention_names(root: Path, names: Sequence[str]) -> None:
    """Warn of folders that may be other classes than somebody takes them for."""
    for remark in (remark_on_numbers(names), remark_on_alike(names)):
        if remark is not None:
            warnings.warn(f"{root}: {remark}", stacklevel=user_stacklevel())


def _instead(root: Path) -> str:
    """What lies in a folder that was to hold others."""
    files = sorted(entry.name for entry in root.iterdir() if not is_hidden(entry.name))
    return f"; there are {few(files, most=3)}" if files else "; it is empty"


def scan_class_folders(root: Path, classes: Sequence[str] = ()) -> ImageFolder:
    """The images in the folders of ``root``, one for each class.

    Args:
        root: the folder.
        classes: all of them, in order; empty for the folders that there are.

    Raises:
        OSError: a folder cannot be read.
        ValueError: no classes, a class without an image, a folder that is none of ``classes``, or a link that leads
            nowhere and may have led to a class.
    """
    with os.scandir(root) as entries:
        shown = [entry for entry in entries if not is_hidden(entry.name)]
    folders = sorted(entry.name for entry in shown if leads_to_folder(entry))
    lost = [entry.name for entry in shown if entry.is_symlink() and not os.path.exists(entry.path)]
    _check_lost(root, lost, classes)
    if not folders:
        raise ValueError(f"{root} has no class folders: it must hold CLASS/IMAGE, or {SHARDS}{_instead(root)}")
    classes = tuple(classes or folders)
    _check_named(root, folders, classes)
    found = {name: files_below(root / name, root) for name in folders}
    images = [[file for file in one.files if _is_image(file)] for one in found.values()]
    _mention_links(root, found)
    empty = [name for name, files in zip(folders, images, strict=True) if not files]
    if empty:
        raise ValueError(
            f"{root}: no images (*{', *'.join(EXTENSIONS)}) in the class folders {few(empty)}: put images there, or "
            f"delete the folders, in train/ and val/ alike"
        )
    paths = np.array([f for name, files in zip(folders, images, strict=True) for f in _below(name, files)])  # [N]
    counts = torch.tensor([len(files) for files in images])  # [K]
    numbers = {name: number for number, name in enumerate(classes)}
    labels = torch.tensor([numbers[name] for name in folders]).repeat_interleave(counts)  # [N]
    return ImageFolder(root, paths, labels, classes)


def _check_lost(root: Path, lost: Sequence[str], classes: Sequence[str]) -> None:
    """Refuse links that lead nowhere in a class's place; any may be in one where no file names the classes."""
    if missing := sorted(name for name in lost if not classes or name in classes):
        what = "images of classes are" if classes else "classes may be"
        otherwise = "" if classes else f", or name all classes in {root.parent / CLASSES_FILE}, a line each"
        raise ValueError(
            f"{root}: links that lead nowhere, so that {what} missing: {few(missing)}. Remove or mend them{otherwise}"
        )


def _check_named(root: Path, folders: Sequence[str], classes: Sequence[str]) -> None:
    """Refuse folders that are not among the classes, or stand for two of them."""
    file = root.parent / CLASSES_FILE
    if unknown := sorted(set(folders) - set(classes)):
        raise ValueError(
            f"{root}: the class folders {few(unknown)} are not among the {counted(len(classes), 'class')} that {file} "
            f"names: it must have the name of every class folder, a line each{hint_on_alike({*folders, *classes})}"
        )
    if twice := [name for name, count in Counter(classes).items() if count > 1]:
        raise ValueError(f"{file} names {few(twice)} twice: a folder can be of one class only")


def _mention_links(root: Path, found: Mapping[str, Found]) -> None:
    """Warn of links to folders that were passed over, and of folders whose images are of two classes through links."""
    if passed_over := [os.path.relpath(path, root) for one in found.values() for path in one.passed_over]:
        warnings.warn(
            f"{root}: passed over, as links to a folder that they lie in or that is read already: {few(passed_over)}",
            stacklevel=user_stacklevel(),
        )
    owners: dict[str, list[str]] = {}
    for name, one in found.items():
        for folder in one.folders:
            owners.setdefault(folder, []).append(name)
    if shared := [f"{folder} ({' and '.join(names)})" for folder, names in owners.items() if len(names) > 1]:
        warnings.warn(
            f"{root}: images count for more than one class, since links lead to one folder: {few(sorted(shared))}",
            stacklevel=user_stacklevel(),
        )


def count_others(source: ImageFolder) -> Counter[str]:
    """How many files in the class folders are no images by their names, for each ending; hidden ones do not count."""
    folders = (source.root / name for name in source.classes if (source.root / name).is_dir())  # some have none
    files = (os.path.basename(file) for folder in folders for file in files_below(folder, source.root).files)
    return Counter(os.path.splitext(file)[1].lower() for file in files if not is_hidden(file) and not _is_image(file))


def _is_image(path: str) -> bool:
    file = os.path.basename(path)
    return file.lower().endswith(EXTENSIONS) and not is_hidden(file)


def _below(name: str, files: Iterable[str]) -> list[bytes]:
    return [os.fsencode(os.path.join(name, file)) for file in files]
