"""Run ``fastadv data check`` once its arguments are parsed."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from concurrent.futures import BrokenExecutor
from functools import partial
from pathlib import Path

from fastadv import data
from fastadv.cli.exits import FAILED, ending
from fastadv.data.loaders.factory import cores
from fastadv.data.sources import manifest
from fastadv.data.sources.check import check
from fastadv.data.sources.folder import SPLITS
from fastadv.data.sources.scan import count_not_read, splits_in
from fastadv.utils.optional_deps import require
from fastadv.utils.progress import progress_bar
from fastadv.utils.text import counted, printable, printable_lines

_CHECK = "fastadv data check"


def run(root: Path, workers: int | None) -> int:
    """Check the images below ``root`` in ``workers`` processes, by default one per core; returns the exit code."""
    with ending(_CHECK, interrupted="the same command starts over") as end:
        require("PIL.Image", extra="train")
        sources = data.scan(root, splits_in(root))
        manifest.check_place(root)  # before the hours that decoding may take
        end.begin_work()
        end.code = _check(root, sources, cores() if workers is None else workers)
    return end.code


def _check(root: Path, sources: dict[str, data.ImageSource], workers: int) -> int:
    for name in set(SPLITS) - sources.keys():
        print(f"{printable(str(root))} has no {name}/: only {' and '.join(sources)}/ is checked")
    try:
        splits = _checked(sources, workers)
    except BrokenExecutor as error:
        raise OSError("a decoding process was killed, maybe for lack of memory: try fewer --workers") from error
    kept = _keep(root / manifest.FILE, splits)  # first: the reader of what is printed may go away
    for name, split in splits.items():
        for image in split.left_out:
            print(f"{sources[name].name(image.index)}: {printable(image.reason)}")
        _mention_others(root / name, sources[name])
    if not kept:
        return FAILED
    written = printable(str(root / manifest.FILE))
    bad = sum(len(split.left_out) for split in splits.values())
    print(f"{bad} of {sum(map(len, sources.values()))} images do not decode; written: {written}")
    return FAILED if bad else 0


def _keep(path: Path, splits: Mapping[str, manifest.SplitManifest]) -> bool:
    """Write the manifest; returns False if it cannot be written."""
    try:
        manifest.write_manifest(path, splits)
    except OSError as error:
        print(f"{_CHECK}: {printable_lines(error)}", file=sys.stderr)
        return False
    return True


def _mention_others(folder: Path, source: data.ImageSource) -> None:
    """Report the files of a split that training and evaluation do not read, in case they were meant to."""
    for what, others in count_not_read(folder, source).items():
        if others:
            endings = {printable(ending) or "without an ending": count for ending, count in sorted(others.items())}
            counts = ", ".join(f"{count:,} {ending}" for ending, count in endings.items())
            files = counted(sum(others.values()), "file")
            print(f"{printable(str(folder))}: {files} left out {what}: {counts}")


def _checked(sources: dict[str, data.ImageSource], workers: int) -> dict[str, manifest.SplitManifest]:
    """Check each split, with a progress bar on the terminal."""
    with progress_bar() as progress:
        tasks = {name: progress.add_task(name, total=len(source)) for name, source in sources.items()}
        return {
            name: check(source, workers, partial(progress.advance, tasks[name])) for name, source in sources.items()
        }
