"""Find images in files: in folders, WebDataset tar shards or TFRecord shards."""

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
    """List all images in ``root``, by split: train and val.

    They are in ``train/CLASS/IMAGE`` and ``val/CLASS/IMAGE``, or in shards in ``train/`` and ``val/``: ``*.tar`` with
    images and ``.cls`` files, or TFRecord files, named ``*.tfrecord`` or like ``train-00000-of-01024``. ``classes.txt``
    beside the splits names all classes in order, one per line; a split may lack some. Without it, classes are the
    folders, or for shards the numbers up to the largest label. That is the label of a training image if there are any,
    which are then indexed even if only ``val`` is requested.

    Args:
        root: the folder that contains the splits.
        splits: names of the splits to list; others need not exist.

    Raises:
        FileNotFoundError: if there is no such folder, or a split is missing.
        ValueError: if anything else is wrong; the message says what.

    Warns:
        UserWarning: if one split has images of classes that another lacks, which only shards and classes.txt allow,
            there are folders beside shards, or shards have images or classes that belong to no example.
    """
    root = Path(root)
    with log_if_slow(f"listing the images in {root}"):
        return _scan(root, splits)


def _scan(root: Path, splits: Sequence[str]) -> dict[str, ImageSource]:
    classes = named_classes(root)
    shards = {pattern: {split: _shards(root / split, pattern) for split in SPLITS} for pattern in _KINDS}
    kinds = [pattern for pattern, files in shards.items() if any(files[split] for split in splits)]
    if kinds:
        return _scan_shards(root, _shards_of_one_kind(root, shards, kinds, splits), _KINDS[kinds[0]], classes, splits)
    found: dict[str, ImageSource] = dict(scan_image_folder(root, splits, classes))
    _warn_of_missing_classes(root, found, "Class folders may be missing")
    return found


def _shards(folder: Path, pattern: str) -> list[Path]:
    """The shards in a folder that match a pattern and are not hidden.

    Raises:
        ValueError: if one is not a regular file, such as a pipe or a broken link.
    """
    shown = (path for path in folder.glob(pattern) if not is_hidden(path.name))
    files = [path for path in shown if not path.is_dir()]  # a class folder may be called jack-of-spades1
    if odd := [path.name for path in files if not path.is_file()]:
        raise ValueError(f"{folder}: shards must be regular files, or links to some: {few(odd)}")
    return files


def _shards_of_one_kind(
    root: Path, shards: Mapping[str, dict[str, list[Path]]], kinds: Sequence[str], splits: Sequence[str]
) -> dict[str, list[Path]]:
    """The shards of each split; all must be of the same kind.

    Warns:
        UserWarning: if there are folders beside them, which may be meant as classes.
    """
    if len(kinds) > 1:
        raise ValueError(f"{root}: all shards must be of one kind, and there are {' and '.join(kinds)}")
    files = shards[kinds[0]]
    if lacking := [split for split in splits if not files[split]]:
        (one,) = set(splits) - set(lacking)
        raise ValueError(f"{root}: {one}/ holds shards ({kinds[0]}) and {lacking[0]}/ does not: both must")
    for split in splits:
        if folders := sorted(path.name for path in (root / split).iterdir() if path.is_dir() and not _is_ignored(path)):
            warnings.warn(
                f"{root / split} holds shards; the folders beside them are not read: {few(folders)}",
                stacklevel=user_stacklevel(),
            )
    return files


def _is_ignored(path: Path) -> bool:
    """Whether it is hidden, or an index or its temporary file: nobody means it to be read as images."""
    return is_hidden(path.name) or SUFFIX in path.name


def _scan_shards(
    root: Path,
    files: dict[str, list[Path]],
    contents: _Reader,
    classes: tuple[str, ...],
    splits: Sequence[str],
) -> dict[str, ImageSource]:
    if not classes and files["train"] and "train" not in splits:
        classes = open_shards(files["train"], contents, ()).classes  # the other splits may lack the last classes
    found: dict[str, ShardedImages] = {}
    for split in splits:  # train before val
        found[split] = open_shards(files[split], contents, classes)
        classes = classes or found[split].classes
        _warn_of_unused(root / split, found[split].lost)
    _warn_of_missing_classes(root, found, "Shards may be missing, or one of the two may count classes from 1")
    return dict(found)


def _warn_of_unused(folder: Path, lost: Sequence[str]) -> None:
    """Warn of files in shards that look like images or classes but belong to no example."""
    if lost:
        warnings.warn(
            f"{folder}: {counted(len(lost), 'file')} in the shards not used: {few(lost)}. An example is KEY.jpg, or "
            f"another image, and KEY.cls, where KEY ends at the first dot of the file's name",
            stacklevel=user_stacklevel(),
        )


def _warn_of_missing_classes(root: Path, sources: Mapping[str, ImageSource], why: str) -> None:
    """Warn of classes that have images in one split but not in another.

    For folders without classes.txt this is an error, because it changes the numbers of the classes. For shards and
    classes.txt it is allowed: a few shards may suffice for a trial, and class 0 of ImageNet's TFRecords has no images.
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
    """Count the files of a split that are never read, by place and by ending."""
    if isinstance(source, ImageFolder):
        return {"that are not images by their names": count_others(source)}
    if not isinstance(source, ShardedImages):
        return {}
    shards = {file.name for file in source.files}
    beside = (path for path in folder.iterdir() if path.is_file() and path.name not in shards and not _is_ignored(path))
    return {
        "beside the shards": Counter(path.suffix.lower() for path in beside),
        "inside the shards, neither images nor classes": source.others,
    }


def splits_in(root: Path) -> tuple[str, ...]:
    """The splits whose folders exist; both if neither does."""
    return tuple(split for split in SPLITS if (root / split).is_dir()) or SPLITS


def load_splits(root: Path, splits: Sequence[str], download: bool = False) -> dict[str, ImageSource]:
    """List the images of some splits, without those that the manifest leaves out.

    Args:
        root: see :func:`scan`.
        splits: see :func:`scan`.
        download: must be False.

    Raises:
        FileNotFoundError: see :func:`scan`.
        ValueError: see :func:`scan`; also if the manifest cannot be read or is stale, or ``download`` is set.

    Warns:
        UserWarning: if the manifest leaves out images; says how many.
    """
    if download:
        raise ValueError("imagenet cannot be downloaded: its licence asks for an account at image-net.org")
    sources, path = scan(root, splits), root / manifest.FILE
    if not os.path.lexists(path):
        return sources
    checked = manifest.read_manifest(path)
    if lacking := [name for name in splits if name not in checked]:
        raise ValueError(f"{path} is stale: it does not cover {' and '.join(lacking)}: {manifest.remedy(path)}")
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
