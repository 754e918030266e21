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
from fastadv.data.sources.class_names import CLASSES_FILE as CLASSES_FILE  # re-exported
from fastadv.data.sources.class_names import numeric_names_warning, similar_names_hint, similar_names_warning
from fastadv.data.sources.folder_walk import Found, files_below, is_hidden, leads_to_folder
from fastadv.utils.regular_files import read_regular
from fastadv.utils.stacklevel import user_stacklevel
from fastadv.utils.text import counted, few, printable

EXTENSIONS = (".jpeg", ".jpg", ".png", ".bmp", ".webp", ".tif", ".tiff")  # by name; decode.FORMATS by content
SPLITS = ("train", "val")


@dataclass(frozen=True, eq=False)
class ImageFolder:
    """Images in one folder per class; their format is determined by the content, not by the name.

    Args:
        root: the folder that contains the class folders.
        paths: [N] of bytes, relative to ``root``, sorted. A list of a million strings would take ten times the memory,
            and each worker process would copy it.
        labels: [N] int64.
        classes: names of the class folders, sorted, or those in classes.txt, which may be more.
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
        """Path relative to the folder."""
        return os.fsdecode(self.paths[index])

    def name(self, index: int) -> str:
        """Printable absolute path."""
        return printable(str(self._path(index)))

    def read(self, index: int) -> bytes:
        """Content of the file."""
        return read_regular(self._path(index), MOST_BYTES)

    def stamp(self, index: int) -> Stamp:
        """Size and modification time of the file."""
        found = self._path(index).stat()
        return found.st_size, found.st_mtime_ns

    def _path(self, index: int) -> Path:
        return self.root / self.key(index)


SHARDS = "shards named *.tar, *.tfrecord or NAME-00000-of-00010"


def expected(splits: Sequence[str] = SPLITS) -> str:
    """Describes what a folder with these splits must contain."""
    folders = " and ".join(f"{name}/CLASS/IMAGE" for name in splits)
    return f"{folders}, or shards (*.tar, TFRecord) in {' and '.join(f'{name}/' for name in splits)}"


def scan_image_folder(
    root: Path, splits: Sequence[str] = SPLITS, classes: Sequence[str] = ()
) -> dict[str, ImageFolder]:
    """List the images of some splits, sorted by path as in torchvision.

    Args:
        root: the folder that contains the splits.
        splits: names of the splits to list.
        classes: all class names in order; a split may lack some. If empty, the class folders determine them.

    Raises:
        FileNotFoundError: if there is no such folder, or a split is missing.
        ValueError: if there are no classes, a class has no image, or the classes of the splits differ from each other
            or from ``classes``; names them.
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
            f"classes, one per line; {where}{similar_names_hint(every)}"
        )
    if not classes:
        _warn_of_names(root, sorted(every))
    return found


def _warn_of_names(root: Path, names: Sequence[str]) -> None:
    """Warn of class folders whose names are easily misunderstood."""
    for text in (numeric_names_warning(names), similar_names_warning(names)):
        if text is not None:
            warnings.warn(f"{root}: {text}", stacklevel=user_stacklevel())


def _found_in(root: Path) -> str:
    """Describes what is in a folder that has no class folders."""
    files = sorted(entry.name for entry in root.iterdir() if not is_hidden(entry.name))
    return f"; there are {few(files, most=3)}" if files else "; it is empty"


def scan_class_folders(root: Path, classes: Sequence[str] = (), file: Path | None = None) -> ImageFolder:
    """List the images in the class folders of ``root``.

    Args:
        root: the folder that contains the class folders.
        classes: all class names in order; if empty, the class folders determine them.
        file: that may name the classes, for messages; None is ``classes.txt`` beside ``root``.

    Raises:
        OSError: if a folder cannot be read.
        ValueError: if there are no classes, a class has no image, a folder is not in ``classes``, or a broken link may
            have led to a class.
    """
    with os.scandir(root) as entries:
        shown = [entry for entry in entries if not is_hidden(entry.name)]
    folders = sorted(entry.name for entry in shown if leads_to_folder(entry))
    broken = [entry.name for entry in shown if entry.is_symlink() and not os.path.exists(entry.path)]
    file = root.parent / CLASSES_FILE if file is None else file
    _check_broken_links(root, broken, classes, file)
    if not folders:
        raise ValueError(f"{root} has no class folders: it must hold CLASS/IMAGE, or {SHARDS}{_found_in(root)}")
    classes = tuple(classes or folders)
    _check_named(root, folders, classes, file)
    found = {name: files_below(root / name, root) for name in folders}
    images = [[file for file in one.files if _is_image(file)] for one in found.values()]
    _warn_of_links(root, found)
    empty = [name for name, files in zip(folders, images, strict=True) if not files]
    if empty:
        raise ValueError(
            f"{root}: no images (*{', *'.join(EXTENSIONS)}) in the class folders {few(empty)}: put images there, or "
            f"delete the folders{', in train/ and val/ alike' if root.name in SPLITS else ''}"
        )
    paths = np.array([f for name, files in zip(folders, images, strict=True) for f in _with_folder(name, files)])  # [N]
    counts = torch.tensor([len(files) for files in images])  # [K]
    numbers = {name: number for number, name in enumerate(classes)}
    labels = torch.tensor([numbers[name] for name in folders]).repeat_interleave(counts)  # [N]
    return ImageFolder(root, paths, labels, classes)


def _check_broken_links(root: Path, broken: Sequence[str], classes: Sequence[str], file: Path) -> None:
    """Refuse broken links with the name of a class; without classes.txt, any name may be one."""
    if missing := sorted(name for name in broken if not classes or name in classes):
        what = "images of classes are" if classes else "classes may be"
        otherwise = "" if classes else f", or name all classes in {file}, one per line"
        raise ValueError(f"{root}: broken links, so that {what} missing: {few(missing)}. Remove or fix them{otherwise}")


def _check_named(root: Path, folders: Sequence[str], classes: Sequence[str], file: Path) -> None:
    """Refuse folders that are not among the classes, or that classes.txt names twice."""
    if unknown := sorted(set(folders) - set(classes)):
        raise ValueError(
            f"{root}: the class folders {few(unknown)} are not among the {counted(len(classes), 'class')} that {file} "
            f"names: it must name every class folder, one per line{similar_names_hint({*folders, *classes})}"
        )
    if twice := [name for name, count in Counter(classes).items() if count > 1]:
        raise ValueError(f"{file} names {few(twice)} twice: a folder can be only one class")


def _warn_of_links(root: Path, found: Mapping[str, Found]) -> None:
    """Warn of links to folders that were skipped, and of folders that links put into two classes."""
    if skipped := [os.path.relpath(path, root) for one in found.values() for path in one.skipped]:
        warnings.warn(
            f"{root}: skipped links to folders that contain them or were read already: {few(skipped)}",
            stacklevel=user_stacklevel(),
        )
    owners: dict[str, list[str]] = {}
    for name, one in found.items():
        for folder in one.folders:
            owners.setdefault(folder, []).append(name)
    if shared := [f"{folder} ({' and '.join(names)})" for folder, names in owners.items() if len(names) > 1]:
        warnings.warn(
            f"{root}: images belong to more than one class, because links lead to the same folder: "
            f"{few(sorted(shared))}",
            stacklevel=user_stacklevel(),
        )


def count_others(source: ImageFolder) -> Counter[str]:
    """Count the files in the class folders that are not images by their names, by ending; ignores hidden files."""
    folders = (source.root / name for name in source.classes if (source.root / name).is_dir())  # some have none
    files = (os.path.basename(file) for folder in folders for file in files_below(folder, source.root).files)
    return Counter(os.path.splitext(file)[1].lower() for file in files if not is_hidden(file) and not _is_image(file))


def _is_image(path: str) -> bool:
    file = os.path.basename(path)
    return file.lower().endswith(EXTENSIONS) and not is_hidden(file)


def _with_folder(name: str, files: Iterable[str]) -> list[bytes]:
    return [os.fsencode(os.path.join(name, file)) for file in files]
