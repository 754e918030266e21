"""ImageSource: encoded images that lie in files, read by index."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

Stamp = tuple[int, int]  # size in bytes and time of the last change in ns, of a file
MOST_BYTES = 1 << 28  # of one encoded image: several times what a photograph of Pillow's most pixels takes


class ImageSource(Protocol):
    """Encoded images with their labels, each to be had by its index.

    One seam for folders and shards, so that order, augmentation, resumption and the treatment of bad files are the same
    for all of them and for every loader. It asks for random access, which a shard offers through an index of where
    each image begins: a shuffled epoch reads single images of 100 kB in random order, as from a folder, but without a
    million files for the file system to keep. Media that are slow at this (spinning disks, object stores) want shards
    read from front to back and shuffled in a buffer; that order is no function of (seed, epoch) that is the same for
    any number of processes and any place to resume at, so it is not offered.
    """

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes' names."""
        ...

    @property
    def labels(self) -> Tensor:  # [N] int64
        """Indices into the classes."""
        ...

    @property
    def left_out(self) -> frozenset[int]:
        """Indices of images that are known to be bad: never read, their places filled as those of bad images."""
        ...

    def __len__(self) -> int: ...

    def key(self, index: int) -> str:
        """Names the image within the data set, wherever that lies."""
        ...

    def name(self, index: int) -> str:
        """Names the image in a message, as it can be printed: its path, or its place in a shard."""
        ...

    def read(self, index: int) -> bytes:
        """The encoded image.

        Raises:
            OSError: it cannot be read.
        """
        ...

    def stamp(self, index: int) -> Stamp:
        """Size and time of change of the file that holds the image.

        Raises:
            OSError: there is no such file any more.
        """
        ...


@dataclass(frozen=True, eq=False)
class Selection:
    """Some images of a source, in the given order.

    Args:
        source: where they are.
        indices: [n] int64, which ones.
    """

    source: ImageSource
    indices: Tensor  # [n]

    @property
    def classes(self) -> tuple[str, ...]:
        """All classes of the source."""
        return self.source.classes

    @cached_property
    def labels(self) -> Tensor:  # [n]
        """Of the selected images."""
        return self.source.labels[self.indices]

    @cached_property
    def left_out(self) -> frozenset[int]:
        """Those of the source that are selected."""
        left_out = self.source.left_out
        return frozenset(place for place, index in enumerate(self.indices.tolist()) if index in left_out)

    def __len__(self) -> int:
        return len(self.indices)

    def key(self, index: int) -> str:
        """As in the source."""
        return self.source.key(int(self.indices[index]))

    def name(self, index: int) -> str:
        """As in the source."""
        return self.source.name(int(self.indices[index]))

    def read(self, index: int) -> bytes:
        """From the source."""
        return self.source.read(int(self.indices[index]))

    def stamp(self, index: int) -> Stamp:
        """From the source."""
        return self.source.stamp(int(self.indices[index]))


def spread(source: ImageSource, count: int | None) -> ImageSource:
    """``count`` images evenly spread over the source, all of them for None.

    Files are sorted by class: the first so many would be of few classes.
    """
    total = len(source)
    if count is None or count >= total:
        return source
    return Selection(source, torch.arange(count, device="cpu") * total // count)


def fingerprint_of_files(source: ImageSource) -> str:
    """sha256 over the keys, file sizes and labels of a source's images, in order; it does not read the images.

    Raises:
        OSError: a file is gone.
    """
    return _digest(
        f"{source.key(index)}\t{source.stamp(index)[0]}\t{label}" for index, label in enumerate(source.labels.tolist())
    )


def fingerprint_of_keys(source: ImageSource) -> str:
    """sha256 over the keys and labels of a source's images, in order; it touches no file."""
    return _digest(f"{source.key(index)}\t{label}" for index, label in enumerate(source.labels.tolist()))


def fingerprint_of_names(source: ImageSource) -> str:
    """sha256 over the keys of a source's images, in order; it touches no file."""
    return _digest(source.key(index) for index in range(len(source)))


def _digest(lines: Iterable[str]) -> str:
    """sha256 over lines of text, which may hold whatever a file system allows in names."""
    total = hashlib.sha256()
    for line in lines:
        total.update(line.encode("utf-8", "surrogateescape") + b"\n")
    return total.hexdigest()


def indices_left(source: ImageSource, left_out: Sequence[int]) -> Tensor:  # [n] int64
    """The indices of a source without some of them."""
    keep = torch.ones(len(source), dtype=torch.bool, device="cpu")  # [N]
    keep[list(left_out)] = False
    return keep.nonzero().flatten()
