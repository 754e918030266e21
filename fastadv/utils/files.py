"""Folders that results go to."""

from __future__ import annotations

import fcntl
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def check_not_a_file(folder: Path) -> None:
    """Raise if a folder's name is taken.

    Raises:
        OSError: it is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise OSError(f"cannot write to the folder {folder}: it is a file")


def make_folder(folder: Path) -> None:
    """Make ``folder`` and those above it, and see that files can be written there.

    Written to for a trial: permissions alone do not tell of a read-only file system, nor of what root may do.

    Raises:
        OSError: it cannot be made or written to; the message names it and the reason.
    """
    check_not_a_file(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OSError(f"cannot write to the folder {folder}: {error.strerror}") from error


def check_not_locked(folder: Path) -> None:
    """Refuse a folder that another process writes to, before anything in it is read: it is about to change.

    Raises:
        OSError: that; the message names the folder.
    """
    if (folder / ".lock").is_file():
        with locked_folder(folder):
            pass


@contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Within the block, another process that asks for the same folder is refused.

    The lock is this process's own and ends with it, whatever it has forked: a loader's workers may outlive it for some
    seconds. The same process is not refused, and must not ask twice: whatever first closes the file gives the lock up.

    Raises:
        OSError: another process has it; the message names the folder.
    """
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # flock's would be shared with what is forked
        except (BlockingIOError, PermissionError):  # POSIX allows either
            raise OSError(f"another process writes to the folder {folder}: wait for it, or take another") from None
        except OSError as error:  # some network file systems
            warnings.warn(f"{folder} cannot be locked against other processes ({error.strerror})", stacklevel=2)
        yield
