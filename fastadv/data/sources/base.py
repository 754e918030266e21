"""ImageSource: encoded images in files, read by index."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

Stamp = tuple[int, int]  # of a file: size in bytes, and modification time in ns
MOST_BYTES = 1 << 28  # of an encoded image: several times the size of a photograph with Pillow's largest pixel count


class ImageSource(Protocol):
    """Encoded images and their labels, with random access by index.

    The common interface of folders and shards, so that order, augmentation, resumption and the handling of bad files
    are the same for both and for every loader. A shard provides random access through an index of its images: a
    shuffled epoch then reads single images of 100 kB in random order, as from a folder, but without a million files.
    Media that are slow at this (spinning disks, object stores) need sequential reading and a shuffle buffer. That is
    not supported, because its order would depend on the number of processes and on where a run is resumed.
    """

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names."""
        ...

    @property
    def labels(self) -> Tensor:  # [N] int64
        """Indices into the classes."""
        ...

    @property
    def left_out(self) -> frozenset[int]:
        """Indices of images that are known to be bad: they are never read, and are replaced like other bad images."""
        ...

    def __len__(self) -> int: ...

    def key(self, index: int) -> str:
        """Name of the image within the data set, independent of the data set's location."""
        ...

    def name(self, index: int) -> str:
        """Printable name of the image for messages: its path, or its place in a shard."""
        ...

    def read(self, index: int) -> bytes:
        """Read the encoded image.

        Raises:
            OSError: if it cannot be read.
        """
        ...

    def stamp(self, index: int) -> Stamp:
        """Size and modification time of the image's file.

        Raises:
            OSError: if the file does not exist any more.
        """
        ...


@dataclass(frozen=True, eq=False)
class Selection:
    """Some images of a source, in the given order.

    Args:
        source: the source to select from.
        indices: [n] int64, indices of the selected images.
    """

    source: ImageSource
    indices: Tensor  # [n]

    @property
    def classes(self) -> tuple[str, ...]:
        """All classes of the source."""
        return self.source.classes

    @cached_property
    def labels(self) -> Tensor:  # [n]
        """Labels of the selected images."""
        return self.source.labels[self.indices]

    @cached_property
    def left_out(self) -> frozenset[int]:
        """Selected images that the source leaves out."""
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
    """Select ``count`` images spread evenly over the source; all of them for None.

    Files are sorted by class, so the first ``count`` would be of few classes.
    """
    total = len(source)
    if count is None or count >= total:
        return source
    return Selection(source, torch.arange(count, device="cpu") * total // count)


def fingerprint_of_files(source: ImageSource) -> str:
    """sha256 over the keys, file sizes and labels of a source's images, in order; does not read the images.

    Raises:
        OSError: if a file is gone.
    """
    return _digest(
        f"{source.key(index)}\t{source.stamp(index)[0]}\t{label}" for index, label in enumerate(source.labels.tolist())
    )


def fingerprint_of_keys(source: ImageSource) -> str:
    """sha256 over the keys and labels of a source's images, in order; accesses no files."""
    return _digest(f"{source.key(index)}\t{label}" for index, label in enumerate(source.labels.tolist()))


def fingerprint_of_names(source: ImageSource) -> str:
    """sha256 over the keys of a source's images, in order; accesses no files."""
    return _digest(source.key(index) for index in range(len(source)))


def _digest(lines: Iterable[str]) -> str:
    """sha256 over lines of text, which may have any bytes that a file system allows in names."""
    total = hashlib.sha256()
    for line in lines:
        total.update(line.encode("utf-8", "surrogateescape") + b"\n")
    return total.hexdigest()


def indices_left(source: ImageSource, left_out: Sequence[int]) -> Tensor:  # [n] int64
    """Indices of a source's images, without ``left_out``."""
    keep = torch.ones(len(source), dtype=torch.bool, device="cpu")  # [N]
    keep[list(left_out)] = False
    return keep.nonzero().flatten()
