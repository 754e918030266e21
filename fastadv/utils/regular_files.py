"""Reads files from others safely: a pipe or a device in place of a file could block a program or never end."""

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
    """Read a regular file, or the one that a link points to.

    Args:
        path: the file.
        most: size limit in bytes; None for no limit.

    Raises:
        OSError: if it cannot be read, is too large, or is not a regular file. Such files are not even opened, which can
            have side effects.
    """
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        kind = _KINDS.get(stat.S_IFMT(found.st_mode), "something else")
        raise OSError(errno.EINVAL, f"this is {kind}, not a regular file", str(path))
    if most is not None and found.st_size > most:
        size = f"its {found.st_size:,} bytes are more than the limit of {most:,}"
        raise OSError(errno.EFBIG, size, str(path))
    # Some system files still block, or have no end.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        return file.read(found.st_size)
