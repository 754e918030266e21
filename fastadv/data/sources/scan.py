"""Data sets whose images stay in their files: folders, WebDataset's tar shards, TFRecord shards."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from fastadv.data.sources import manifest
from fastadv.data.sources.base import ImageSource
from fastadv.data.sources.class_names import named_classes
from fastadv.data.sources.folder import SPLITS, ImageFolder, count_others, scan_image_folder
from fastadv.data.sources.folder_walk import is_hidden
from fastadv.data.sources.shard_index import SUFFIX, Contents
from fastadv.data.sources.shards import ShardedImages, open_shards
from fastadv.data.sources.tar import tar_entries
from fastadv.data.sources.tfrecord import tfrecord_entries
from fastadv.utils.slow_work import log_if_slow
from fastadv.utils.stacklevel import user_stacklevel
from fastadv.utils.text import counted, few

_Reader = Callable[[Path], Contents]
_KINDS: dict[str, _Reader] = {
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
        UserWarning: one split has images of other classes than the other, which only shards and classes.txt allow;
            folders lie beside shards, or shards hold images or classes that are of no example.
    """
    root = Path(root)
    with log_if_slow(f"listing the images in {root}"):
        return _scan(root, splits)


def _scan(root: Path, splits: Sequence[str]) -> dict[str, ImageSource]:
    classes = named_classes(root)
    shards = {pattern: {split: _shards(root / split, pattern) for split in SPLITS} for pattern in _KINDS}
    kinds = [pattern for pattern, files in shards.items() if any(files[split] for split in splits)]
    if kinds:
        return _scan_shards(root, _of_one_kind(root, shards, kinds, splits), _KINDS[kinds[0]], classes, splits)
    found: dict[str, ImageSource] = dict(scan_image_folder(root, splits, classes))
    _mention_other_classes(root, found, "Class folders may be missing")
    return found


def _shards(folder: Path, pattern: str) -> list[Path]:
    """The shards in a folder of those that are named so, and not hidden.

    Raises:
        ValueError: one of them is no file, as a pipe or a link that leads nowhere.
    """
    shown = (path for path in folder.glob(pattern) if not is_hidden(path.name))
    files = [path for path in shown if not path.is_dir()]  # a class may be called jack-of-spades1
    if odd := [path.name for path in files if not path.is_file()]:
        raise ValueError(f"{folder}: shards must be regular files, or links to some: {few(odd)}")
    return files


def _of_one_kind(
    root: Path, shards: Mapping[str, dict[str, list[Path]]], kinds: Sequence[str], splits: Sequence[str]
) -> dict[str, list[Path]]:
    """The shards of each split, all of which must be of the same kind.

    Warns:
        UserWarning: there are folders beside them, which might be meant for classes.
    """
    if len(kinds) > 1:
        raise ValueError(f"{root}: all shards must be of one kind, and there are {' and '.join(kinds)}")
    files = shards[kinds[0]]
    if lacking := [split for split in splits if not files[split]]:
        (one,) = set(splits) - set(lacking)
        raise ValueError(f"{root}: {one}/ holds shards ({kinds[0]}) and {lacking[0]}/ does not: both must")
    for split in splits:
        if folders := sorted(path.name for path in (root / split).iterdir() if path.is_dir() and not _is_own(path)):
            warnings.warn(
                f"{root / split} holds shards; the folders beside them are not read: {few(folders)}",
                stacklevel=user_stacklevel(),
            )
    return files


def _is_own(path: Path) -> bool:
    """Whether it is hidden or an index, or what is left of one, and nobody means it to be read as images."""
    return is_hidden(path.name) or SUFFIX in path.name


def _scan_shards(
    root: Path,
    files: dict[str, list[Path]],
    contents: _Reader,
    classes: tuple[str, ...],
    splits: Sequence[str],
) -> dict[str, ImageSource]:
    if not classes and files["train"] and "train" not in splits:
        classes = open_shards(files["train"], contents, ()).classes  # all of them; the others may lack the last ones
    found: dict[str, ShardedImages] = {}
    for split in splits:  # train before val
        found[split] = open_shards(files[split], contents, classes)
        classes = classes or found[split].classes
        _mention_lost(root / split, found[split].lost)
    _mention_other_classes(root, found, "Shards may be missing, or one of the two may count classes from 1")
    return dict(found)


def _mention_lost(folder: Path, lost: Sequence[str]) -> None:
    """Warn of what looks like an image or a class in shards and is of no example."""
    if lost:
        warnings.warn(
            f"{folder}: {counted(len(lost), 'file')} in the shards not used: {few(lost)}. An example is KEY.jpg, or "
            f"another image, and KEY.cls, where KEY ends at the first dot of the file's name",
            stacklevel=user_stacklevel(),
        )


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
            stacklevel=user_stacklevel(),
        )


def count_not_read(folder: Path, source: ImageSource) -> dict[str, Counter[str]]:
    """How many files of a split are never read, for each ending, by where they are."""
    if isinstance(source, ImageFolder):
        return {"that are no images by their names": count_others(source)}
    if not isinstance(source, ShardedImages):
        return {}
    shards = {file.name for file in source.files}
    beside = (path for path in folder.iterdir() if path.is_file() and path.name not in shards and not _is_own(path))
    return {
        "beside the shards": Counter(path.suffix.lower() for path in beside),
        "inside the shards, neither images nor classes": source.others,
    }


def splits_in(root: Path) -> tuple[str, ...]:
    """The splits whose folders are there; both if none is."""
    return tuple(split for split in SPLITS if (root / split).is_dir()) or SPLITS


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
                stacklevel=user_stacklevel(),
            )
    return used
