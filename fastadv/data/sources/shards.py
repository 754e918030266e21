"""Images in shards: many encoded images per file, found through an index that is made once."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastadv.data.sources.base import MOST_BYTES, Stamp
from fastadv.data.sources.class_names import CLASSES_FILE
from fastadv.data.sources.shard_index import Contents, index_of
from fastadv.utils.stacklevel import user_stacklevel
from fastadv.utils.text import counted, few, printable

MOST_UNNAMED = 50_000  # most classes without classes.txt, unless there are more images
_READERS = 16  # shards indexed in parallel: each waits for the disk


@dataclass(frozen=True, eq=False)
class ShardedImages:
    """Images in shards.

    Args:
        files: the shards.
        shard: [N], index of each image's file in ``files``.
        keys: [N] of bytes, name of each image in its shard.
        offsets: [N], position of each image.
        sizes: [N], in bytes.
        labels: [N] int64.
        classes: class names.
        left_out: indices of images that are known to be bad.
        stamps: stamps of the files when they were indexed.
        lost: names of files in the shards that look like images or classes but belong to no example.
        others: number of other files in the shards, by ending.
    """

    files: tuple[Path, ...]
    shard: NDArray[np.int64] = field(repr=False)  # [N]
    keys: NDArray[np.bytes_] = field(repr=False)  # [N]
    offsets: NDArray[np.int64] = field(repr=False)  # [N]
    sizes: NDArray[np.int64] = field(repr=False)  # [N]
    labels: Tensor = field(repr=False)  # [N] int64
    classes: tuple[str, ...] = field(repr=False)
    left_out: frozenset[int] = field(default=frozenset(), repr=False)
    stamps: tuple[Stamp, ...] = field(kw_only=True, repr=False)
    lost: tuple[str, ...] = field(kw_only=True, repr=False)
    others: Counter[str] = field(kw_only=True, repr=False)

    def __len__(self) -> int:
        return len(self.offsets)

    def key(self, index: int) -> str:
        """Name of the shard and of the image in it."""
        return f"{self._file(index).name}/{os.fsdecode(self.keys[index])}"

    def name(self, index: int) -> str:
        """Printable path of the shard and name of the image in it."""
        return printable(f"{self._file(index)}/{os.fsdecode(self.keys[index])}")

    def read(self, index: int) -> bytes:
        """Read the image's bytes from its shard."""
        number, size = int(self.shard[index]), int(self.sizes[index])
        if size > MOST_BYTES:
            raise OSError(f"it has {size:,} bytes, more than the limit of {MOST_BYTES:,}")
        # Non-blocking: if a pipe has replaced the shard, opening it would wait.
        descriptor = os.open(self.files[number], os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            if _stamp(os.fstat(descriptor)) != self.stamps[number]:
                raise OSError("the shard has changed since its images were listed")
            content = os.pread(descriptor, size, int(self.offsets[index]))
        finally:
            os.close(descriptor)
        if len(content) < size:
            raise OSError(f"the shard ends {size - len(content)} bytes before this image does")
        return content

    def stamp(self, index: int) -> Stamp:
        """Size and modification time of the shard."""
        return _stamp(self._file(index).stat())

    def _file(self, index: int) -> Path:
        return self.files[int(self.shard[index])]


def _stamp(found: os.stat_result) -> Stamp:
    return found.st_size, found.st_mtime_ns


def open_shards(files: Iterable[Path], contents: Callable[[Path], Contents], classes: tuple[str, ...]) -> ShardedImages:
    """Open shards; images are ordered by the files' names, and within a file by position.

    The index of a shard is stored beside it (``SHARD.fastadv-index.npz``) and made again if the shard has changed.

    Args:
        files: the shards.
        contents: reads the content of a shard.
        classes: class names; if empty, classes are named by their numbers, 0 to the largest label.

    Raises:
        OSError: if a shard cannot be read.
        ValueError: if a shard is damaged or has no images, or a label is not among the classes or implausibly large.

    Warns:
        UserWarning: if indices cannot be stored, and will have to be made again.
    """
    files = tuple(sorted(files))
    with ThreadPoolExecutor(_READERS) as pool:
        indices, not_stored = zip(*pool.map(lambda file: index_of(file, contents), files), strict=True)
    _warn_of_unstored(files, not_stored)
    keys, offsets, sizes, labels = (
        np.concatenate([getattr(index, name) for index in indices]) for name in ("keys", "offsets", "sizes", "labels")
    )
    shard = np.repeat(np.arange(len(files)), [len(index.keys) for index in indices])  # [N]
    source = ShardedImages(
        files,
        shard,
        keys,
        offsets,
        sizes,
        torch.from_numpy(labels),
        classes,
        stamps=tuple(index.file_stamp for index in indices),
        lost=tuple(
            f"{file.name}/{os.fsdecode(name)}"
            for file, index in zip(files, indices, strict=True)
            for name in index.lost
        ),
        others=sum((index.others for index in indices), Counter()),
    )
    _check_labels(source)
    return source if classes else replace(source, classes=tuple(map(str, range(int(labels.max()) + 1))))


def _warn_of_unstored(files: Sequence[Path], reasons: Sequence[str]) -> None:
    """Warn of indices that will have to be made again, in one warning: there may be a thousand."""
    if any(reasons):
        names = few([file.name for file, reason in zip(files, reasons, strict=True) if reason], most=3)
        why = "; ".join(sorted({reason for reason in reasons if reason}))
        warnings.warn(
            f"{files[0].parent}: the index of {names} cannot be stored and is made again at the next start ({why})",
            stacklevel=user_stacklevel(),
        )


def _check_labels(source: ShardedImages) -> None:
    """Refuse labels that are not among the classes or, without class names, implausibly large."""
    largest = int(source.labels.argmax())
    label, most = int(source.labels[largest]), len(source.classes) or max(MOST_UNNAMED, len(source))
    if label < most:
        return
    if source.classes:
        must = f"must lie in 0..{most - 1}, one of the {counted(most, 'class')}"
    else:
        must = f"must be less than {most:,} if no {CLASSES_FILE} beside train/ and val/ names the classes"
    raise ValueError(f"labels {must}; got {label} for {source.name(largest)}")
