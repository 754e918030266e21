"""The index of a shard: where its images lie and what they show, made once and kept beside the shard.

What is kept is believed only as long as the shard is the very file that it was made of, and only if it can be true.
Where both lie on a read-only file system, they came there together, and the shard's size and time of writing will do.
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

LONGEST_KEY = 1024  # bytes: the array of keys gives each as much room as the longest takes
SUFFIX = ".fastadv-index.npz"
_FORMAT = 2  # to be raised when the same shard's index is to say something else than before
_SIZE, _WRITTEN, _CHANGED = 1, 2, 3  # places in a stamp
_TICK = 10**8  # ns: a file that is written twice within a tick of its file system's clock has the same times


class Entry(NamedTuple):
    """Where an image lies in its shard."""

    key: str
    offset: int
    size: int
    label: int


@dataclass(frozen=True)
class Contents:
    """What a shard holds.

    Args:
        entries: its images.
        lost: the names of files that look like images or classes and are of no example.
        others: how many other files there are, for each ending.
    """

    entries: Sequence[Entry]
    lost: Sequence[str] = ()
    others: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class ShardIndex:
    """The contents of a shard, in arrays.

    Args:
        stamp: [4] int64, what tells the shard's file from others.
        keys: [N] of bytes, what each image is called.
        offsets: [N] int64, where each begins.
        sizes: [N] int64, in bytes.
        labels: [N] int64.
        lost: [L] of bytes, as in :class:`Contents`.
        endings: [E] of bytes, of the other files.
        counts: [E] int64, how many have that ending.
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
        """The size and the time of change of the shard that it is of."""
        return int(self.stamp[_SIZE]), int(self.stamp[_WRITTEN])

    @property
    def others(self) -> Counter[str]:
        """How many files there are that are no images and no classes, for each ending."""
        return Counter({os.fsdecode(e): int(n) for e, n in zip(self.endings, self.counts, strict=True)})

    def is_of(self, stamp: NDArray[np.int64], *, copied: bool) -> bool:
        """Whether it was made of the file with this stamp, and can be true of it.

        Args:
            stamp: [4] int64, of the file.
            copied: whether the file is a copy, whose time of any change is another one.
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
    """The index that is kept, if it is the file's, or else one that is made of the file, and kept.

    With it comes why it cannot be kept, or nothing. That of a file that was written just now is not kept either.

    Args:
        file: the shard.
        contents: reads them from a shard.

    Raises:
        OSError: the shard cannot be read.
        ValueError: it is damaged or holds no images, or one of too long a name or label.
    """
    kept, now, stamp = file.with_name(file.name + SUFFIX), time.time_ns(), _stamp(file)
    index = _loaded(kept)
    if index is not None and index.is_of(stamp, copied=_is_read_only(file) and _is_read_only(kept)):
        return index, ""
    index = _made(file, contents(file), stamp)
    if stamp[_CHANGED] > now:  # on some file systems always: they say that a file changes when it is looked at
        return index, "by the file system's clock it was written later than now"
    return index, _keep(kept, index) if now - stamp[_CHANGED] > _TICK else ""


def _is_read_only(file: Path) -> bool:
    """Whether its file system is one that nothing here can write to."""
    return bool(os.statvfs(file).f_flag & os.ST_RDONLY)


def _stamp(file: Path) -> NDArray[np.int64]:  # [4]
    """What tells a file from others, and from itself before it was written again.

    The time when its content changed can be set, and is by programs that copy or pack files; the time when anything of
    it changed cannot.
    """
    found = file.stat()
    return np.array([_FORMAT, found.st_size, found.st_mtime_ns, found.st_ctime_ns])


def _loaded(kept: Path) -> ShardIndex | None:
    """What is kept; None if there is nothing, or no index."""
    if not kept.is_file():  # a pipe would be waited for
        return None
    try:
        with zipfile.ZipFile(kept) as parts:
            if any(part.compress_type != zipfile.ZIP_STORED for part in parts.infolist()):
                return None  # it could take any memory
        with np.load(kept, allow_pickle=False) as stored:
            return ShardIndex(**{one.name: stored[one.name] for one in fields(ShardIndex)})
    except Exception:  # NumPy and zipfile raise many kinds for damaged files; the shard itself is what counts
        return None


def _made(file: Path, contents: Contents, stamp: NDArray[np.int64]) -> ShardIndex:
    if not contents.entries:
        unused = f": {few(contents.lost)} are of no example" if contents.lost else ""
        raise ValueError(f"{file} holds no images{unused}")
    keys, offsets, sizes, labels = zip(*contents.entries, strict=True)
    if (most := max(labels)) > np.iinfo(np.int64).max:
        raise ValueError(f"{file}/{keys[labels.index(most)]}: no class has the number {most}")
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


def _keep(path: Path, index: ShardIndex) -> str:
    """Write an index; returns why it cannot be written, or nothing."""
    # A name of its own: processes in two containers may have one number. savez would append the ending.
    beside = path.with_name(f"{path.name}.{uuid.uuid4().hex}.npz")
    try:
        np.savez(beside, allow_pickle=False, **vars(index))
        beside.replace(path)
    except OSError as error:
        with suppress(OSError):  # on a read-only file system even of a file that is not there
            beside.unlink()
        return error.strerror or str(error)
    return ""
