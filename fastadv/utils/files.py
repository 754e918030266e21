"""Creates and locks output folders."""

from __future__ import annotations

import fcntl
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def check_not_a_file(folder: Path) -> None:
    """Raise if there is a file in the folder's place.

    Raises:
        OSError: if there is.
    """
    if folder.exists() and not folder.is_dir():
        raise OSError(f"cannot write to the folder {folder}: it is a file")


def make_folder(folder: Path) -> None:
    """Create ``folder`` and its parents, and check that files can be written there.

    Writes a temporary file: permissions do not show a read-only file system or root's rights.

    Raises:
        OSError: if it cannot be created or written to; the message has the folder and the reason.
    """
    check_not_a_file(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OSError(f"cannot write to the folder {folder}: {error.strerror}") from error


def check_not_locked(folder: Path) -> None:
    """Raise if another process is writing to the folder. Call it before reading files that may change.

    Raises:
        OSError: if one is; the message has the folder.
    """
    if (folder / ".lock").is_file():
        with locked_folder(folder):
            pass


@contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Lock the folder against other processes within the block.

    The lock belongs to this process and ends with it, even if forked children, such as a loader's workers, live some
    seconds longer. Do not nest locks of one folder in one process: closing the file once releases them all.

    Raises:
        OSError: if another process holds the lock; the message has the folder.
    """
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # flock's lock would be shared with forked processes
        except (BlockingIOError, PermissionError):  # POSIX allows either
            raise OSError(
                f"another process is writing to the folder {folder}: wait for it, or use another folder"
            ) from None
        except OSError as error:  # some network file systems
            warnings.warn(f"{folder} cannot be locked against other processes ({error.strerror})", stacklevel=2)
        yield
