"""Download data sets through torchvision, and report missing files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

REMEDIES = (
    "Pass its folder with --data DIR (root); fastadv train, evaluate and transfer download the files into it with "
    "--download (download=True)"
)


def missing_files(name: str, files: Sequence[str], lacking: Mapping[Path, Sequence[str]]) -> FileNotFoundError:
    """Create the error for a data set whose files are not all in one of the folders that were searched."""
    found = "; ".join(f"{folder} {_state(folder, files, lacks)}" for folder, lacks in lacking.items())
    return FileNotFoundError(f"{name} was not found: it needs {', '.join(files)}. Looked in: {found}. {REMEDIES}")


def _state(folder: Path, files: Sequence[str], lacks: Sequence[str]) -> str:
    if not folder.is_dir():
        return "(no such folder)"
    return "(none of them)" if len(lacks) == len(files) else f"(lacks {', '.join(lacks)})"


def download_into(root: Path, name: str, dataset: Callable[..., Any]) -> None:
    """Have a torchvision data set download what is missing in ``root``.

    Raises:
        OSError: if there is no connection, the transfer is damaged, or the folder is not writable.
    """
    try:
        dataset(root, download=True)
    except (RuntimeError, OSError) as error:
        raise OSError(f"{name} could not be downloaded into {root}: {error}") from error
