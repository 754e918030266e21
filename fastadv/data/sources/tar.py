"""WebDataset's tar shards: files with the same key are one example, such as ``n01440764_10026.jpg`` and ``.cls``.

The key is the path up to the first dot of the file's base name, as in WebDataset. Unlike there, the files of an example
need not be adjacent, and links within the tar file are followed.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from tarfile import TarInfo

from fastadv.data.sources.folder import EXTENSIONS
from fastadv.data.sources.shard_index import Contents, Entry
from fastadv.data.sources.tar_members import follow_links, tar_members
from fastadv.utils.text import few

_CLASS = ".cls"
_UNSEEN = re.compile(r"(.*/)?\.[^/]*$|__[^/]*__($|/)")  # hidden files, and WebDataset's metadata
_NUMBER = re.compile(rb"(?:\xef\xbb\xbf)?\s*([0-9]{1,18})\s*")  # some editors start a text with a byte order mark
_LONGEST_NUMBER = 64  # bytes, including whitespace around it


@dataclass
class _Files:
    """The files in a tar file by kind.

    Args:
        images: by key, the name of the example's image and the member that has its bytes.
        classes: the same for its class.
        second: names of images and classes whose example has one already.
        elsewhere: names of images and classes that are not files, or are links to something outside of the tar file.
        rest: names of all other files.
    """

    images: dict[str, tuple[str, TarInfo]] = field(default_factory=dict)
    classes: dict[str, tuple[str, TarInfo]] = field(default_factory=dict)
    second: list[str] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)
    rest: list[str] = field(default_factory=list)


def tar_entries(file: Path) -> Contents:
    """List the images of a tar file and the numbers in their ``.cls`` files, in the order of the file.

    Raises:
        OSError: if it cannot be read.
        ValueError: if it is not an uncompressed tar file, is truncated or damaged, an image has no class, an example
            has two images or two classes, a class is not a number, or a link leads out of the tar file.
    """
    files = _files(file)
    _check(file, files)
    labels = _labels(file, files)
    alone = [name for key, (name, _) in files.classes.items() if key not in files.images]
    dotted = _dotted_images(files)
    return Contents(
        [Entry(name, image.offset_data, image.size, labels[key]) for key, (name, image) in files.images.items()],
        [*alone, *dotted],
        Counter(_last_ending(name) for name in set(files.rest).difference(dotted)),
    )


def _files(file: Path) -> _Files:
    files = _Files()
    members = tar_members(file)
    for member, target in zip(members, follow_links(members), strict=True):
        if member.isdir():
            continue
        key, ending = _key_and_ending(member.name)
        if ending != _CLASS and ending not in EXTENSIONS:
            files.rest.append(member.name)
            continue
        found = files.classes if ending == _CLASS else files.images
        if key in found:
            files.second.append(member.name)
        elif target is None or not target.isreg():
            files.elsewhere.append(member.name)
        else:
            found[key] = member.name, target
    return files


def _key_and_ending(name: str) -> tuple[str, str]:
    """Split a file's name; the ending is empty if WebDataset would not make the file part of an example."""
    folder, slash, own = name.rpartition("/")
    stem, dot, ending = own.partition(".")
    return f"{folder}{slash}{stem}", "" if _UNSEEN.match(name) else f"{dot}{ending.lower()}"


def _last_ending(name: str) -> str:
    return os.path.splitext(name)[1].lower()


def _check(file: Path, files: _Files) -> None:
    if files.elsewhere:
        raise ValueError(f"{file}: images and classes must be files, or links to files in it: {few(files.elsewhere)}")
    if files.second:
        raise ValueError(f"{file}: an example has one image and one .cls file, but {few(files.second)} is a second one")
    if lacking := [key for key in files.images if key not in files.classes]:
        raise ValueError(
            f"{file}: no .cls file with the class of {few(lacking)}. If it is the archive of one class, as ImageNet is "
            f"downloaded, unpack it into a folder CLASS beside it and remove it"
        )


def _labels(file: Path, files: _Files) -> dict[str, int]:
    """Read the number in each .cls file."""
    labels = {}
    with file.open("rb") as content:
        for key, (name, member) in files.classes.items():
            content.seek(member.offset_data)
            text = content.read(min(member.size, _LONGEST_NUMBER + 1))
            number = _NUMBER.fullmatch(text)
            if number is None or len(text) > _LONGEST_NUMBER:
                raise ValueError(f"{file}: {name!r} must hold the number of a class, from 0, got {text[:20]!r}")
            labels[key] = int(number[1])
    return labels


def _dotted_images(files: _Files) -> list[str]:
    """Images that are ignored because of another dot in their names, unless that is probably intended.

    ``0001.mask.png`` beside ``0001.jpg`` is intended. ``v1.2_b.png`` is not if there is ``v1.2_b.cls``, or if ``v1``
    has no image.
    """
    images = [name for name in files.rest if _last_ending(name) in EXTENSIONS and not _UNSEEN.match(name)]
    classes = {os.path.splitext(name)[0] for name in files.rest if _last_ending(name) == _CLASS}
    return [
        name for name in images if os.path.splitext(name)[0] in classes or _key_and_ending(name)[0] not in files.images
    ]
