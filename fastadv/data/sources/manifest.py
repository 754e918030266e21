"""The manifest of a data set: the images to leave out, and the data set that was checked."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from fastadv.data.sources.base import ImageSource, Selection, Stamp, fingerprint_of_keys, indices_left
from fastadv.utils.files import make_folder
from fastadv.utils.regular_files import read_regular
from fastadv.utils.text import few

FILE = "fastadv-manifest.json"
_FORMAT = 1


def remedy(path: Path) -> str:
    """Advice for a manifest that cannot be used."""
    return f"run {check_command(path.parent)} again, or delete the file"


def check_command(root: str | os.PathLike[str]) -> str:
    """The command that writes the manifest of a data set."""
    return shlex.join(["fastadv", "data", "check", os.fspath(root)])


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """An image that does not decode.

    Args:
        index: index of the image in its split.
        key: its key in the source.
        size: size of its file in bytes; -1 if there is no file, for instance because of a broken link.
        changed: modification time of its file, in ns.
        reason: why it does not decode.
    """

    index: int
    key: str
    size: int
    changed: int
    reason: str


@dataclass(frozen=True, kw_only=True)
class SplitManifest:
    """Result of checking one split.

    Args:
        images: number of images, bad ones included.
        keys: sha256 over their keys and labels.
        left_out: images that do not decode.
    """

    images: int
    keys: str
    left_out: tuple[LeftOut, ...]


def write_manifest(path: Path, splits: Mapping[str, SplitManifest]) -> None:
    """Write the manifest atomically.

    Raises:
        OSError: if the file cannot be written.
    """
    content = {"format": _FORMAT, "splits": {name: asdict(split) for name, split in splits.items()}}
    beside = path.with_name(f"{path.name}.{os.getpid()}")
    beside.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8", errors="surrogateescape")
    beside.replace(path)


def check_place(root: Path) -> None:
    """Check that a manifest can be written to ``root``.

    Raises:
        OSError: if it cannot; the message says what to do.
    """
    try:
        make_folder(root)
    except OSError as error:
        raise OSError(
            f"{error}. The result is written there: create a writable directory of symlinks to its contents and pass "
            f"that, here and in training"
        ) from error


def read_manifest(path: Path) -> dict[str, SplitManifest]:
    """Read a manifest.

    Raises:
        OSError: if the file cannot be read.
        ValueError: if it is not a manifest of this version.
    """
    try:
        content = json.loads(read_regular(path).decode("utf-8", "surrogateescape"))
        if content["format"] != _FORMAT:
            raise ValueError(f"its format is {content['format']}, not {_FORMAT}")
        return {name: _split(values) for name, values in content["splits"].items()}
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not a manifest of this version ({error!r}): {remedy(path)}") from error


def _split(values: Mapping[str, Any]) -> SplitManifest:
    images, left_out = values["images"], tuple(LeftOut(**image) for image in values["left_out"])
    if odd := [image.index for image in left_out if image.index not in range(images)]:
        raise ValueError(f"it leaves out image {odd[0]} of {images}")
    return SplitManifest(images=images, keys=values["keys"], left_out=left_out)


def without_left_out(source: ImageSource, split: SplitManifest, path: Path, train: bool) -> ImageSource:
    """Apply a manifest to a source.

    In training, images keep their indices, and those that are left out are replaced like other bad images. So a run has
    the same order whether the data set is checked before it, during it or never, and the same images if its loader
    finds the same ones bad, as a loader that decodes whole images does. In evaluation, only good images remain.

    Args:
        source: all images of a split, a dataclass.
        split: the manifest's entry for the split.
        path: path of the manifest, for messages.
        train: whether the images are for training.

    Raises:
        ValueError: if the manifest is stale, because it is of other images or images that it leaves out have changed,
            or if it leaves out every image.
    """
    if split.images != len(source) or split.keys != fingerprint_of_keys(source):
        raise ValueError(
            f"{path} is stale: it is of {split.images} images that differ from these {len(source)}: {remedy(path)}"
        )
    found = [(source.key(image.index), *stamp_of(source, image.index)) for image in split.left_out]
    listed = [(image.key, image.size, image.changed) for image in split.left_out]
    changed = [one[0] for one, other in zip(listed, found, strict=True) if one != other]
    if changed:
        raise ValueError(f"{path} is stale: {few(changed)} changed since it was written: {remedy(path)}")
    left_out = [image.index for image in split.left_out]
    if len(left_out) == len(source):
        raise ValueError(f"{path} leaves out every image, such as {source.name(0)}: none of them decodes")
    if not left_out:
        return source
    if train:
        return replace(source, left_out=frozenset(left_out))  # type: ignore[type-var]  # a protocol cannot ask for it
    return Selection(source, indices_left(source, left_out))


def stamp_of(source: ImageSource, index: int) -> Stamp:
    """Size and modification time of an image's file; (-1, 0) if there is none."""
    try:
        return source.stamp(index)
    except OSError:
        return -1, 0
