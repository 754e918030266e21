"""Data sets whose images stay in their files: folders, WebDataset's tar shards, TFRecord shards."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from fastadv.callers import caller_level
from fastadv.data import manifest
from fastadv.data.class_names import named_classes
from fastadv.data.image_folder import SPLITS, scan_image_folder
from fastadv.data.image_set import ImageData
from fastadv.data.image_source import ImageSource
from fastadv.data.shards import Entry, open_shards
from fastadv.data.tar_shards import tar_entries
from fastadv.data.tfrecord_shards import tfrecord_entries
from fastadv.patience import said_if_slow
from fastadv.wording import few

_KINDS: dict[str, Callable[[Path], list[Entry]]] = {
    "*.tar": tar_entries,
    "*.tfrecord": tfrecord_entries,
    "*-of-*[0-9]": tfrecord_entries,  # as in train-00000-of-01024
}


def scan(root: str | os.PathLike[str], splits: Sequence[str] = SPLITS) -> dict[str, ImageSource]:
    """All images below ``root``, by the names of the splits, train and val.

    Either ``train/CLASS/IMAGE`` and ``val/CLASS/IMAGE``, or shards in ``train/`` and ``val/``: ``*.tar`` of images and
    ``.cls`` files, or TFRecord files, named ``*.tfrecord`` or as in ``train-00000-of-01024``. ``classes.txt`` beside
    them names all classes in order, a line each, of which a split may lack some. Without it those of folders are the
    folders, and those of shards are numbered up to the largest label, of the training images if there are any, which
    are indexed for that even if ``val`` alone is wanted.

    Args:
        root: the folder.
        splits: those that are wanted; another one need not be there.

    Raises:
        FileNotFoundError: no such folder, or a split is not in it.
        ValueError: whatever else is not as it should be; the message says what.

    Warns:
        UserWarning: one split has images of other classes than the other, which only shards and classes.txt allow.
    """
    root = Path(root)
    with said_if_slow(f"listing the images in {root}"):
        return _scan(root, splits)


def _scan(root: Path, splits: Sequence[str]) -> dict[str, ImageSource]:
    classes = named_classes(root)
    for pattern, entries in _KINDS.items():
        # A class folder may be called jack-of-spades1.
        files = {split: [path for path in (root / split).glob(pattern) if path.is_file()] for split in SPLITS}
        if all(files[split] for split in splits):
            return _scan_shards(root, files, entries, classes, splits)
        if any(files[split] for split in splits):
            one, other = sorted(splits, key=lambda split: not files[split])
            raise ValueError(f"{root}: {one}/ holds shards ({pattern}) and {other}/ does not: both must")
    found: dict[str, ImageSource] = dict(scan_image_folder(root, splits, classes))
    _mention_other_classes(root, found, "Class folders may be missing")
    return found


def _scan_shards(
    root: Path,
    files: dict[str, list[Path]],
    entries: Callable[[Path], list[Entry]],
    classes: tuple[str, ...],
    splits: Sequence[str],
) -> dict[str, ImageSource]:
    if not classes and files["train"] and "train" not in splits:
        classes = open_shards(files["train"], entries, ()).classes  # all of them; the others may lack the last ones
    found: dict[str, ImageSource] = {}
    for split in splits:  # train before val
        found[split] = open_shards(files[split], entries, classes)
        classes = classes or found[split].classes
    _mention_other_classes(root, found, "Shards may be missing, or one of the two may count classes from 1")
    return found


def _mention_other_classes(root: Path, sources: Mapping[str, ImageSource], why: str) -> None:
    """Warn of classes that one split has images of and another has not.

    With folders that nothing names it is an error, for it changes the numbers of the classes. The labels of shards and
    of named folders stand, some of them may be meant to do for a trial, and class 0 of ImageNet's TFRecords has no
    image in either split.
    """
    shown = {split: set(source.labels.tolist()) for split, source in sources.items()}
    lacking = {split: sorted(set().union(*shown.values()) - labels) for split, labels in shown.items()}
    if any(lacking.values()):
        names = sources["train"].classes
        where = "; ".join(f"{split}/ lacks {few([names[n] for n in one])}" for split, one in lacking.items() if one)
        warnings.warn(
            f"{root}: train/ and val/ show different classes: {where}. {why}",
            stacklevel=caller_level(),
        )


def splits_in(root: Path) -> tuple[str, ...]:
    """The splits whose folders are there; both, for want of them, if none is."""
    return tuple(split for split in SPLITS if (root / split).is_dir()) or SPLITS


def load_stored(root: Path, download: bool = False) -> ImageData:
    """The images below ``root``, without those that its manifest leaves out; arguments as for :func:`load_splits`."""
    found = load_splits(root, SPLITS, download)
    return ImageData(found["train"], found["val"])


def load_splits(root: Path, splits: Sequence[str], download: bool = False) -> dict[str, ImageSource]:
    """The images of some splits below ``root``, without those that its manifest leaves out.

    Args:
        root: as for :func:`scan`, like ``splits``.
        splits: those that are wanted.
        download: refused, there being nowhere to fetch them from.

    Raises:
        FileNotFoundError: as for :func:`scan`.
        ValueError: as for :func:`scan`; a manifest that cannot be read, or is stale; ``download``.

    Warns:
        UserWarning: how many images the manifest leaves out.
    """
    if download:
        raise ValueError("imagenet cannot be downloaded: its licence asks for an account at image-net.org")
    sources, path = scan(root, splits), root / manifest.FILE
    if not os.path.lexists(path):
        return sources
    checked = manifest.read_manifest(path)
    if lacking := [name for name in splits if name not in checked]:
        raise ValueError(f"{path} is stale: it is not of {' and '.join(lacking)}: {manifest.remedy(path)}")
    used = {
        name: manifest.without_left_out(source, checked[name], path, train=name == "train")
        for name, source in sources.items()
    }
    for name, source in sources.items():
        if left_out := checked[name].left_out:
            replaced = ": the next image takes the place of each" if name == "train" else ""
            keys = few([image.key for image in left_out], most=3)
            warnings.warn(
                f"{path} leaves out {len(left_out)} of {len(source)} {name} images ({keys}){replaced}",
                stacklevel=caller_level(),
            )
    return used
