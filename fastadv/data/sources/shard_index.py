"""The index of a shard: positions, sizes and labels of its images, made once and stored beside the shard.

A stored index is used only if the shard is still the file that it was made from, and the index is plausible. On a
read-only file system, where both were copied together, the shard's size and modification time suffice.
"""

from __future__ import annotations

import os
import time
import uuid
import zipfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastadv.data.sources.base import Stamp
from fastadv.utils.text import few

LONGEST_KEY = 1024  # bytes: the array of keys reserves room for the longest one for each
SUFFIX = ".fastadv-index.npz"
_FORMAT = 2  # increase it if the index of the same shard changes
_SIZE, _MODIFIED, _CHANGED = 1, 2, 3  # positions in a stamp
_TICK = 10**8  # ns: a file written twice within a tick of the file system's clock has the same times


class Entry(NamedTuple):
    """Position of an image in its shard."""

    key: str
    offset: int
    size: int
    label: int


@dataclass(frozen=True)
class Contents:
    """Content of a shard.

    Args:
        entries: its images.
        lost: names of files that look like images or classes but belong to no example.
        others: number of other files, by ending.
    """

    entries: Sequence[Entry]
    lost: Sequence[str] = ()
    others: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class ShardIndex:
    """Content of a shard in arrays.

    Args:
        stamp: [4] int64, identifies the shard's file.
        keys: [N] of bytes, names of the images.
        offsets: [N] int64, positions of the images.
        sizes: [N] int64, in bytes.
        labels: [N] int64.
        lost: [L] of bytes; see :class:`Contents`.
        endings: [E] of bytes, endings of other files.
        counts: [E] int64, number of files with each ending.
    """

    stamp: NDArray[np.int64]  # [4]
    keys: NDArray[np.bytes_]  # [N]
    offsets: NDArray[np.int64]  # [N]
    sizes: NDArray[np.int64]  # [N]
    labels: NDArray[np.int64]  # [N]
    lost: NDArray[np.bytes_]  # [L]
    endings: NDArray[np.bytes_]  # [E]
    counts: NDArray[np.int64]  # [E]

    @property
    def file_stamp(self) -> Stamp:
        """Size and modification time of the shard."""
        return int(self.stamp[_SIZE]), int(self.stamp[_MODIFIED])

    @property
    def others(self) -> Counter[str]:
        """Number of files that are neither images nor classes, by ending."""
        return Counter({os.fsdecode(e): int(n) for e, n in zip(self.endings, self.counts, strict=True)})

    def is_of(self, stamp: NDArray[np.int64], *, copied: bool) -> bool:
        """Whether it was made from the file with this stamp, and is plausible.

        Args:
            stamp: [4] int64, stamp of the file.
            copied: whether the file is a copy, which has another change time.
        """
        compared = _CHANGED if copied else len(stamp)
        return (
            all(array.ndim == 1 and _is_sound(name, array.dtype) for name, array in vars(self).items())
            and len(self.stamp) == len(stamp)
            and np.array_equal(self.stamp[:compared], stamp[:compared])
            and len(self.keys) == len(self.offsets) == len(self.sizes) == len(self.labels) > 0
            and len(self.endings) == len(self.counts)
            and min(self.offsets.min(), self.sizes.min(), self.labels.min()) >= 0
            and bool((self.sizes <= stamp[_SIZE] - self.offsets).all())
        )


def _is_sound(name: str, kind: np.dtype) -> bool:
    return kind.kind == "S" if name in ("keys", "lost", "endings") else kind == np.int64


def index_of(file: Path, contents: Callable[[Path], Contents]) -> tuple[ShardIndex, str]:
    """Load the stored index if it belongs to the file; otherwise make one and store it.

    Returns the index, and why it could not be stored, or an empty string. The index of a file that was written just now
    is not stored.

    Args:
        file: the shard.
        contents: reads the content of a shard.

    Raises:
        OSError: if the shard cannot be read.
        ValueError: if it is damaged or has no images, or a name or label is too large.
    """
    kept, now, stamp = file.with_name(file.name + SUFFIX), time.time_ns(), _stamp(file)
    index = _load(kept)
    if index is not None and index.is_of(stamp, copied=_is_read_only(file) and _is_read_only(kept)):
        return index, ""
    index = _make(file, contents(file), stamp)
    if stamp[_CHANGED] > now:  # always, on file systems where looking at a file changes it
        return index, "by the file system's clock it was written in the future"
    return index, _store(kept, index) if now - stamp[_CHANGED] > _TICK else ""


def _is_read_only(file: Path) -> bool:
    """Whether its file system is read-only."""
    return bool(os.statvfs(file).f_flag & os.ST_RDONLY)


def _stamp(file: Path) -> NDArray[np.int64]:  # [4]
    """Identify a file and its current content.

    The modification time can be set, and is by programs that copy or pack files; the change time cannot.
    """
    found = file.stat()
    return np.array([_FORMAT, found.st_size, found.st_mtime_ns, found.st_ctime_ns])


def _load(kept: Path) -> ShardIndex | None:
    """Load a stored index; None if there is none, or it cannot be read."""
    if not kept.is_file():  # opening a pipe would wait
        return None
    try:
        with zipfile.ZipFile(kept) as parts:
            if any(part.compress_type != zipfile.ZIP_STORED for part in parts.infolist()):
                return None  # decompressing it could take any amount of memory
        with np.load(kept, allow_pickle=False) as stored:
            return ShardIndex(**{one.name: stored[one.name] for one in fields(ShardIndex)})
    except Exception:  # of any kind, for damaged files; the index can be made again
        return None


def _make(file: Path, contents: Contents, stamp: NDArray[np.int64]) -> ShardIndex:
    if not contents.entries:
        unused = f": {few(contents.lost)} belong to no example" if contents.lost else ""
        raise ValueError(f"{file} holds no images{unused}")
    keys, offsets, sizes, labels = zip(*contents.entries, strict=True)
    if (most := max(labels)) > np.iinfo(np.int64).max:
        raise ValueError(f"{file}/{keys[labels.index(most)]}: {most} is too large for the number of a class")
    return ShardIndex(
        stamp=stamp,
        keys=_encoded(file, keys),
        offsets=np.array(offsets, np.int64),
        sizes=np.array(sizes, np.int64),
        labels=np.array(labels, np.int64),
        lost=_encoded(file, contents.lost),
        endings=_encoded(file, list(contents.others)),
        counts=np.array(list(contents.others.values()), np.int64),
    )


def _encoded(file: Path, names: Sequence[str]) -> NDArray[np.bytes_]:  # [n]
    encoded = [os.fsencode(name) for name in names]
    if too_long := next((name for name in encoded if len(name) > LONGEST_KEY), None):
        raise ValueError(f"{file}: a name of {len(too_long)} bytes, {too_long[:40]!r}..., is longer than {LONGEST_KEY}")
    return np.array(encoded, np.bytes_)


def _store(path: Path, index: ShardIndex) -> str:
    """Store an index; returns why it could not be stored, or an empty string."""
    # A unique name: processes in two containers may have the same id. savez would append the ending.
    beside = path.with_name(f"{path.name}.{uuid.uuid4().hex}.npz")
    try:
        np.savez(beside, allow_pickle=False, **vars(index))
        beside.replace(path)
    except OSError as error:
        with suppress(OSError):  # fails on a read-only file system even if the file does not exist
            beside.unlink()
        return error.strerror or str(error)
    return ""
