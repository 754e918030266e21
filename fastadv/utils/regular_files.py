"""Reading files that others made: a pipe or a device in a file's place would hold a program up, or never end."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}


def read_regular(path: Path, most: int | None = None) -> bytes:
    """The content of a regular file, or of one that a link leads to.

    Args:
        path: the file.
        most: the number of bytes above which nothing is read; None for no limit.

    Raises:
        OSError: it cannot be read, is too large, or something else than a regular file, which is not opened: that
            alone can have effects.
    """
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        kind = _KINDS.get(stat.S_IFMT(found.st_mode), "something else")
        raise OSError(errno.EINVAL, f"this is {kind}, not a regular file", str(path))
    if most is not None and found.st_size > most:
        size = f"its {found.st_size:,} bytes are more than the limit of {most:,}"
        raise OSError(errno.EFBIG, size, str(path))
    # Some files of the system wait for content all the same, or have no end.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        return file.read(found.st_size)
