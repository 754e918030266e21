"""The files in a folder and below, through links too, without going round in circles."""

from __future__ import annotations

import os
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

# Made by systems, not by who made the data set: macOS's archives, thumbnails of Synology's servers, ext4, Windows.
_OF_SYSTEMS = ("__MACOSX", "@eaDir", "lost+found", "$RECYCLE.BIN", "System Volume Information")


@dataclass(frozen=True)
class Found:
    """What lies below a folder.

    Args:
        files: paths relative to it, sorted.
        folders: the real paths of the folders that were read.
        passed_over: paths of links to folders that lead to where they lie, or to what was read already.
    """

    files: list[str] = field(default_factory=list)
    folders: set[str] = field(default_factory=set)
    passed_over: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Folder:
    """A folder to be read.

    Args:
        below: its path relative to where the walk began.
        real: its path without links.
        way: the real paths of the folders that lead to it.
    """

    below: str
    real: str
    way: tuple[str, ...]


def is_hidden(name: str) -> bool:
    """Whether a file or folder is none of the data set's, by its name."""
    return name.startswith(".") or name in _OF_SYSTEMS


def leads_to_folder(entry: os.DirEntry[str]) -> bool:
    """Whether it is a folder, or a link to one; a link that leads to itself is none."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def files_below(folder: Path, root: Path) -> Found:
    """The files in ``folder`` and in folders below that are not hidden.

    Each folder is read once: first those that lie below, then those that links lead to. A folder that the way to it
    passed through, or that ``root`` or another one on that way lies in, is not read.

    Args:
        folder: where to look.
        root: what it lies in.

    Raises:
        OSError: a folder cannot be read.
    """
    found = Found()
    links = deque([_Folder("", os.path.realpath(folder), (os.path.realpath(root),))])
    below: list[_Folder] = []
    while below or links:
        one = below.pop() if below else links.popleft()
        if one.real in found.folders or any(_lies_in(place, one.real) for place in one.way):
            found.passed_over.append(os.path.join(folder, one.below))
            continue
        found.folders.add(one.real)
        _read(folder, one, found.files, below, links)
    found.files.sort()
    return found


def _read(top: Path, folder: _Folder, files: list[str], below: list[_Folder], links: deque[_Folder]) -> None:
    """Add what lies in one folder to the files and folders that there are."""
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
    """Whether a real path is that of a folder, or of something below it."""
    return place == folder or place.startswith(os.path.join(folder, ""))
