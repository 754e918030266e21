"""Folders that results go to."""

from __future__ import annotations

import tempfile
from pathlib import Path


def make_folder(folder: Path) -> None:
    """Make ``folder`` and those above it, and see that files can be written there.

    Written to for a trial: permissions alone do not tell of a read-only file system, nor of what root may do.

    Raises:
        OSError: it cannot be made or written to; the message names it and the reason.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        reason = "it is a file" if isinstance(error, FileExistsError) else error.strerror
        raise OSError(f"cannot write to the folder {folder}: {reason}") from error
