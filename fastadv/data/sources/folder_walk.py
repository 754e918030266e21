"""List the files in a folder and its subfolders, following links, but reading each folder once."""

from __future__ import annotations

import os
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

# Created by systems, not part of the data set: macOS archives, Synology thumbnails, ext4, Windows.
_OF_SYSTEMS = ("__MACOSX", "@eaDir", "lost+found", "$RECYCLE.BIN", "System Volume Information")


@dataclass(frozen=True)
class Found:
    """Content of a folder and its subfolders.

    Args:
        files: paths relative to the folder, sorted.
        folders: real paths of the folders that were read.
        skipped: paths of links to folders that contain them, or that were read already.
    """

    files: list[str] = field(default_factory=list)
    folders: set[str] = field(default_factory=set)
    skipped: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Folder:
    """A folder to read.

    Args:
        below: its path relative to the top of the walk.
        real: its path without links.
        way: real paths of the folders that lead to it.
    """

    below: str
    real: str
    way: tuple[str, ...]


def is_hidden(name: str) -> bool:
    """Whether a file or folder is hidden or made by the system, by its name."""
    return name.startswith(".") or name in _OF_SYSTEMS


def leads_to_folder(entry: os.DirEntry[str]) -> bool:
    """Whether it is a folder, or a link to one; false for a link to itself."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def files_below(folder: Path, root: Path) -> Found:
    """List the files in ``folder`` and its subfolders that are not hidden.

    Each folder is read once: first real subfolders, then those that links lead to. A folder that contains ``root``, or
    a folder on the way to it, is not read.

    Args:
        folder: the folder to list.
        root: the folder that contains it.

    Raises:
        OSError: if a folder cannot be read.
    """
    found = Found()
    links = deque([_Folder("", os.path.realpath(folder), (os.path.realpath(root),))])
    below: list[_Folder] = []
    while below or links:
        one = below.pop() if below else links.popleft()
        if one.real in found.folders or any(_lies_in(place, one.real) for place in one.way):
            found.skipped.append(os.path.join(folder, one.below))
            continue
        found.folders.add(one.real)
        _read(folder, one, found.files, below, links)
    found.files.sort()
    return found


def _read(top: Path, folder: _Folder, files: list[str], below: list[_Folder], links: deque[_Folder]) -> None:
    """Read one folder, and add to the files, and to the folders still to read."""
    way = (*folder.way, folder.real)
    with os.scandir(os.path.join(top, folder.below)) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            path = os.path.join(folder.below, entry.name)
            if not leads_to_folder(entry):
                files.append(path)
            elif is_hidden(entry.name):
                continue
            elif entry.is_symlink():
                links.append(_Folder(path, os.path.realpath(entry.path), way))
            else:
                below.append(_Folder(path, os.path.join(folder.real, entry.name), way))


def _lies_in(place: str, folder: str) -> bool:
    """Whether a real path is a folder or inside it."""
    return place == folder or place.startswith(os.path.join(folder, ""))
