"""Folders of data-set files: what is missing, what to do about it, and downloading through torchvision."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any


def missing_files(name: str, lacking: Mapping[Path, Sequence[str]]) -> FileNotFoundError:
    """The error for a data set of which each folder that was searched lacks these files."""
    searched = "; ".join(
        f"{folder} {'lacks' if folder.is_dir() else 'does not exist, with'} {', '.join(files)}"
        for folder, files in lacking.items()
    )
    return FileNotFoundError(
        f"{name} was not found: {searched}. Point root (--data DIR) at the folder that holds these files, or fetch "
        f"them into it with download=True (--download)"
    )


def download_into(root: Path, name: str, dataset: Callable[..., Any]) -> None:
    """Let a torchvision data set fetch what is missing below ``root``.

    Raises:
        OSError: no connection, a damaged transfer, or a folder that cannot be written.
    """
    try:
        dataset(root, download=True)
    except (RuntimeError, OSError) as error:
        raise OSError(f"{name} could not be downloaded into {root}: {error}") from error
