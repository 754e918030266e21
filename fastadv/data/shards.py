"""Shards: many encoded images in one file, each found through an index of the file that is made once."""

from __future__ import annotations

import os
import uuid
import warnings
import zipfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastadv.data.image_source import Stamp
from fastadv.wording import printable

_SUFFIX = ".fastadv-index.npz"
_READERS = 16  # shards indexed at a time: each waits for the disk


class Entry(NamedTuple):
    """Where an image lies in its shard."""

    key: str
    offset: int
    size: int
    label: int


@dataclass(frozen=True, eq=False)
class ShardedImages:
    """Images in shards.

    Args:
        files: the shards.
        shard: [N], the place of each image's file in ``files``.
        keys: [N] of bytes, what each image is called in its shard.
        offsets: [N], where each image begins.
        sizes: [N], in bytes.
        labels: [N] int64.
        classes: their names.
        left_out: indices of images that are known to be bad.
    """

    files: tuple[Path, ...]
    shard: NDArray[np.int64] = field(repr=False)  # [N]
    keys: NDArray[np.bytes_] = field(repr=False)  # [N]
    offsets: NDArray[np.int64] = field(repr=False)  # [N]
    sizes: NDArray[np.int64] = field(repr=False)  # [N]
    labels: Tensor = field(repr=False)  # [N] int64
    classes: tuple[str, ...] = field(repr=False)
    left_out: frozenset[int] = field(default=frozenset(), repr=False)

    def __len__(self) -> int:
        return len(self.offsets)

    def key(self, index: int) -> str:
        """The shard's name and the image's in it."""
        return f"{self._file(index).name}/{os.fsdecode(self.keys[index])}"

    def name(self, index: int) -> str:
        """The shard's path and the image's name in it, as they can be printed."""
        return printable(f"{self._file(index)}/{os.fsdecode(self.keys[index])}")

    def read(self, index: int) -> bytes:
        """The image's part of its shard."""
        size = int(self.sizes[index])
        descriptor = os.open(self._file(index), os.O_RDONLY)
        try:
            content = os.pread(descriptor, size, int(self.offsets[index]))
        finally:
            os.close(descriptor)
        if len(content) < size:
            raise OSError(f"the shard ends {size - len(content)} bytes before this image does")
        return content

    def stamp(self, index: int) -> Stamp:
        """Of the shard."""
        return _stamp(self._file(index))

    def _file(self, index: int) -> Path:
        return self.files[int(self.shard[index])]


def open_shards(
    files: Iterable[Path], entries: Callable[[Path], list[Entry]], classes: tuple[str, ...]
) -> ShardedImages:
    """The images of some shards, in the order of the files' names and of the images in them.

    The index of a shard is kept beside it (``SHARD.fastadv-index.npz``) and made anew when the shard has changed.

    Args:
        files: the shards.
        entries: makes the index of one.
        classes: the classes' names; empty to name them by their numbers, 0 to the largest label.

    Raises:
        OSError: a shard cannot be read.
        ValueError: a shard that is damaged or holds no images, or a label that is none of the classes.

    Warns:
        UserWarning: an index cannot be kept, and will have to be made again.
    """
    files = tuple(sorted(files))
    with ThreadPoolExecutor(_READERS) as pool:
        indices = list(pool.map(lambda file: _index(file, entries), files))
    shard = np.repeat(np.arange(len(files)), [len(index["offsets"]) for index in indices])  # [N]
    keys, offsets, sizes, labels = (
        np.concatenate([index[name] for index in indices]) for name in ("keys", "offsets", "sizes", "labels")
    )
    classes = classes or tuple(str(number) for number in range(int(labels.max()) + 1))
    if labels.min() < 0 or labels.max() >= len(classes):
        raise ValueError(
            f"labels in {files[0].parent} must lie in 0..{len(classes) - 1}, one of the {len(classes)} classes; "
            f"got {labels.min()}..{labels.max()}"
        )
    return ShardedImages(files, shard, keys, offsets, sizes, torch.from_numpy(labels), classes)


def _index(file: Path, entries: Callable[[Path], list[Entry]]) -> dict[str, NDArray]:
    """keys, offsets, sizes and labels of a shard's images, [N] each."""
    kept = file.with_name(file.name + _SUFFIX)
    stamp = np.array(_stamp(file))  # [2]
    try:
        with np.load(kept) as stored:
            if np.array_equal(stored["stamp"], stamp):
                return dict(stored)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        pass  # none yet, or damaged: the shard itself is what counts
    found = entries(file)
    if not found:
        raise ValueError(f"{file} holds no images")
    keys, offsets, sizes, labels = zip(*found, strict=True)
    index = {
        "stamp": stamp,
        "keys": np.array([os.fsencode(key) for key in keys]),
        "offsets": np.array(offsets, np.int64),
        "sizes": np.array(sizes, np.int64),
        "labels": np.array(labels, np.int64),
    }
    _keep(kept, index)
    return index


def _keep(path: Path, index: dict[str, NDArray]) -> None:
    # A name of its own: processes in two containers may have one number. savez would append the ending.
    beside = path.with_name(f"{path.name}.{uuid.uuid4().hex}.npz")
    try:
        np.savez(beside, allow_pickle=False, **index)
        beside.replace(path)
    except OSError as error:
        with suppress(OSError):  # on a read-only file system even of a file that is not there
            beside.unlink()
        warnings.warn(f"the index {path} cannot be kept and is made at each start ({error.strerror})", stacklevel=2)


def _stamp(file: Path) -> Stamp:
    found = file.stat()
    return found.st_size, found.st_mtime_ns
