"""Data sets whose images stay in their files: folders, WebDataset's tar shards, TFRecord shards."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from pathlib import Path

from fastadv.callers import caller_level
from fastadv.data import manifest
from fastadv.data.image_folder import SPLITS, scan_image_folder
from fastadv.data.image_set import ImageData
from fastadv.data.image_source import ImageSource
from fastadv.data.shards import Entry, open_shards
from fastadv.data.tar_shards import tar_entries
from fastadv.data.tfrecord_shards import tfrecord_entries
from fastadv.patience import said_if_slow

CLASSES_FILE = "classes.txt"
_KINDS: dict[str, Callable[[Path], list[Entry]]] = {
    "*.tar": tar_entries,
    "*.tfrecord": tfrecord_entries,
    "*-of-*[0-9]": tfrecord_entries,  # as in train-00000-of-01024
}


def scan(root: str | os.PathLike[str]) -> dict[str, ImageSource]:
    """All images below ``root``, by the names of the splits, train and val.

    Either ``train/CLASS/IMAGE`` and ``val/CLASS/IMAGE``, or shards in ``train/`` and ``val/``: ``*.tar`` of images and
    ``.cls`` files, or TFRecord files, named ``*.tfrecord`` or as in ``train-00000-of-01024``. ``classes.txt`` beside
    them names the classes of shards, a line each.

    Raises:
        FileNotFoundError: no such folder, or no train/ or val/ in it.
        ValueError: whatever else is not as it should be; the message says what.
    """
    root = Path(root)
    with said_if_slow(f"listing the images in {root}"):
        return _scan(root)


def _scan(root: Path) -> dict[str, ImageSource]:
    for pattern, entries in _KINDS.items():
        files = {split: list((root / split).glob(pattern)) for split in SPLITS}
        if all(files.values()):
            return _scan_shards(root, files, entries)
        if any(files.values()):
            one, other = sorted(SPLITS, key=lambda split: not files[split])
            raise ValueError(f"{root}: {one}/ holds shards ({pattern}) and {other}/ does not: both must")
    train, val = scan_image_folder(root)
    return {"train": train, "val": val}


def _scan_shards(
    root: Path, files: dict[str, list[Path]], entries: Callable[[Path], list[Entry]]
) -> dict[str, ImageSource]:
    named = root / CLASSES_FILE
    classes = tuple(named.read_text(encoding="utf-8").split("\n")) if named.exists() else ()
    classes = tuple(name for name in classes if name)
    train = open_shards(files["train"], entries, classes)
    return {"train": train, "val": open_shards(files["val"], entries, train.classes)}


def load_stored(root: Path, download: bool = False) -> ImageData:
    """The images below ``root``, without those that its manifest leaves out.

    Args:
        root: as for :func:`scan`.
        download: refused, there being nowhere to fetch them from.

    Raises:
        FileNotFoundError: as for :func:`scan`.
        ValueError: as for :func:`scan`; a manifest that cannot be read, or is stale; ``download``.

    Warns:
        UserWarning: how many images the manifest leaves out.
    """
    if download:
        raise ValueError("imagenet cannot be downloaded: its licence asks for an account at image-net.org")
    sources, path = scan(root), root / manifest.FILE
    if not path.exists():
        return ImageData(sources["train"], sources["val"])
    splits = manifest.read_manifest(path)
    if splits.keys() != sources.keys():
        raise ValueError(f"{path} is stale: it is not of {' and '.join(sources)}: {manifest.remedy(path)}")
    train, val = (
        manifest.without_left_out(sources[name], splits[name], path, train=name == "train") for name in SPLITS
    )
    for name, source in sources.items():
        if left_out := len(splits[name].left_out):
            replaced = ": the next image takes the place of each" if name == "train" else ""
            warnings.warn(
                f"{path} leaves out {left_out} of {len(source)} {name} images{replaced}", stacklevel=caller_level()
            )
    return ImageData(train, val)
