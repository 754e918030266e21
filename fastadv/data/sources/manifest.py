"""The manifest of a data set: which of its images to leave out, and what they were found in."""

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
    """What to do about a manifest that cannot be used."""
    return f"run {check_command(path.parent)} again, or delete the file"


def check_command(root: str | os.PathLike[str]) -> str:
    """The command that makes the manifest of a data set."""
    return shlex.join(["fastadv", "data", "check", os.fspath(root)])


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """An image that does not decode.

    Args:
        index: of the image in its split.
        key: the image's in the source.
        size: of the file that holds it, in bytes; -1 if there is none, such as where a link leads nowhere.
        changed: time of that file's last change, in ns.
        reason: why it does not decode.
    """

    index: int
    key: str
    size: int
    changed: int
    reason: str


@dataclass(frozen=True, kw_only=True)
class SplitManifest:
    """What was found in one split.

    Args:
        images: how many there were, bad ones included.
        keys: sha256 over their keys and labels.
        left_out: those that do not decode.
    """

    images: int
    keys: str
    left_out: tuple[LeftOut, ...]


def write_manifest(path: Path, splits: Mapping[str, SplitManifest]) -> None:
    """Write the manifest, at once and whole.

    Raises:
        OSError: the file cannot be written.
    """
    content = {"format": _FORMAT, "splits": {name: asdict(split) for name, split in splits.items()}}
    beside = path.with_name(f"{path.name}.{os.getpid()}")
    beside.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8", errors="surrogateescape")
    beside.replace(path)


def check_place(root: Path) -> None:
    """See that a manifest can be written to ``root``.

    Raises:
        OSError: it cannot; the message says what to do.
    """
    try:
        make_folder(root)
    except OSError as error:
        raise OSError(
            f"{error}. The result is written there: name a folder of links to all that lies in it instead, here and "
            f"in training"
        ) from error


def read_manifest(path: Path) -> dict[str, SplitManifest]:
    """The manifest in a file.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not a manifest of this version.
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
        raise ValueError(f"of {images} images it leaves out number {odd[0]}")
    return SplitManifest(images=images, keys=values["keys"], left_out=left_out)


def without_left_out(source: ImageSource, split: SplitManifest, path: Path, train: bool) -> ImageSource:
    """A source as its manifest has it used.

    For training the images keep their numbers, and those that are left out are replaced as bad ones are: a run goes on
    with the same order, whether the data set was checked before it, during it or not at all; and with the same images
    if its loader finds the same of them bad, as one that decodes whole images does. For evaluation there are as many
    images as there are good ones.

    Args:
        source: all images of a split, a dataclass.
        split: what the manifest says of it.
        path: the manifest's, for messages.
        train: whether the images are for training.

    Raises:
        ValueError: the manifest is of other images than these, or what it leaves out has changed since: it is stale;
            or it leaves out every image.
    """
    if split.images != len(source) or split.keys != fingerprint_of_keys(source):
        raise ValueError(
            f"{path} is stale: it is of {split.images} images, and these {len(source)} differ: {remedy(path)}"
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
    """Size and time of change of the file that holds an image; (-1, 0) if there is none."""
    try:
        return source.stamp(index)
    except OSError:
        return -1, 0
