"""Folders of data-set files: what is missing, what to do about it, and downloading through torchvision."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

REMEDIES = (
    "Name its folder with --data DIR (root); fastadv train, evaluate and transfer fetch the files into it with "
    "--download (download=True)"
)


def missing_files(name: str, files: Sequence[str], lacking: Mapping[Path, Sequence[str]]) -> FileNotFoundError:
    """The error for a data set of these files, where each folder that was searched lacks some."""
    found = "; ".join(f"{folder} {_state(folder, files, lacks)}" for folder, lacks in lacking.items())
    return FileNotFoundError(f"{name} was not found: it needs {', '.join(files)}. Looked in: {found}. {REMEDIES}")


def _state(folder: Path, files: Sequence[str], lacks: Sequence[str]) -> str:
    if not folder.is_dir():
        return "(no such folder)"
    return "(none of them)" if len(lacks) == len(files) else f"(lacks {', '.join(lacks)})"


def download_into(root: Path, name: str, dataset: Callable[..., Any]) -> None:
    """Let a torchvision data set fetch what is missing below ``root``.

    Raises:
        OSError: no connection, a damaged transfer, or a folder that cannot be written.
    """
    try:
        dataset(root, download=True)
    except (RuntimeError, OSError) as error:
        raise OSError(f"{name} could not be downloaded into {root}: {error}") from error
