"""``fastadv data check``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import BrokenExecutor
from functools import partial
from pathlib import Path

from fastadv import data
from fastadv.cli.arguments import create_parser, parse, whole
from fastadv.data.loaders.factory import cores
from fastadv.data.sources import manifest
from fastadv.data.sources.check import check
from fastadv.data.sources.folder import SPLITS
from fastadv.data.sources.scan import count_not_read, splits_in
from fastadv.utils.devices import MOST_THREADS
from fastadv.utils.optional_deps import require
from fastadv.utils.progress import progress_bar
from fastadv.utils.signals import exit_code, interrupt, on_first_signal
from fastadv.utils.text import counted, printable, printable_lines

_CHECK = "fastadv data check"
_DESCRIPTION = """\
Decode every image of a data set, whole, and list those that do not decode: files that are cut off, damaged, empty,
unreadable, no images in a format that is read, of more than 179 megapixels (Pillow's limit) or 256 MiB, or of 32 bits
a channel. Both loaders use all others: DALI gets from Pillow what it does not decode itself. Damage that decoders
tolerate, such as wrong pixels in the middle of a JPEG, is not found. The data set is a folder with train/CLASS/IMAGE
and val/CLASS/IMAGE, or with shards in train/ and val/ (WebDataset's *.tar, or TFRecord files). Where one of the two is
there, it is checked alone: for an evaluation val/ is enough.
"""

_EPILOG = f"""\
The result is written to DIR/{manifest.FILE}; where DIR is read-only, name a folder of links to all that lies in it
instead, here and in training. Training and evaluation on DIR then leave out the files that it lists,
and say how many; in training the next image takes the place of each, so that a run which was begun before goes on as
it was (with DALI it also used files that are damaged below the window that it cuts out). The result is refused as stale
when files came, went or were mended since: run the command again. Files in class folders that are no images by their
names, such as .gif or .txt, are counted, and never read.

example:
  fastadv data check /data/imagenet

exit codes: 0 all images decode; 1 some do not, the manifest could not be written, or a process was killed; 2 a mistake
in the command or the data set, or DIR cannot be written to; 130 or 143 stopped by SIGINT (Ctrl-C) or SIGTERM.
"""


def main(argv: Sequence[str]) -> int:
    """Run ``fastadv data`` with these arguments; returns the exit code."""
    _parser().parse_args(argv[:1])
    arguments = parse(_check_parser(), argv[1:])
    try:
        with on_first_signal(interrupt):
            return _check(arguments.folder, arguments.workers)
    except BrokenExecutor:
        said = "a process that decodes was killed, for want of memory perhaps: fewer --workers take less of it"
        print(f"{_CHECK}: {said}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as stopped:
        print(f"{_CHECK}: interrupted; the same command begins anew", file=sys.stderr)
        return exit_code(*stopped.args)


def _check(root: Path, workers: int) -> int:
    try:
        require("PIL.Image", extra="train")
        sources = data.scan(root, splits_in(root))
        manifest.check_place(root)  # before the hours that decoding may take
    except (ValueError, OSError) as error:
        print(f"{_CHECK}: {printable_lines(error)}", file=sys.stderr)
        return 2
    for name in set(SPLITS) - sources.keys():
        print(f"{printable(str(root))} has no {name}/: {' and '.join(sources)}/ is checked alone")
    splits = _checked(sources, workers)
    kept = _keep(root / manifest.FILE, splits)  # first: the reader of what is printed may go away
    for name, split in splits.items():
        for image in split.left_out:
            print(f"{sources[name].name(image.index)}: {printable(image.reason)}")
        _mention_others(root / name, sources[name])
    if not kept:
        return 1
    written = printable(str(root / manifest.FILE))
    bad = sum(len(split.left_out) for split in splits.values())
    print(f"{bad} of {sum(map(len, sources.values()))} images do not decode; written: {written}")
    return 1 if bad else 0


def _keep(path: Path, splits: Mapping[str, manifest.SplitManifest]) -> bool:
    """Write the manifest; whether it could be written."""
    try:
        manifest.write_manifest(path, splits)
    except OSError as error:
        print(f"{_CHECK}: {printable_lines(error)}", file=sys.stderr)
        return False
    return True


def _mention_others(folder: Path, source: data.ImageSource) -> None:
    """Say what training and evaluation do not read of a split, for it might have been meant to be read."""
    for what, others in count_not_read(folder, source).items():
        if others:
            endings = {printable(ending) or "without an ending": count for ending, count in sorted(others.items())}
            counts = ", ".join(f"{count:,} {ending}" for ending, count in endings.items())
            files = counted(sum(others.values()), "file")
            print(f"{printable(str(folder))}: {files} left out {what}: {counts}")


def _checked(sources: dict[str, data.ImageSource], workers: int) -> dict[str, manifest.SplitManifest]:
    """What is found in each split, with a bar on the terminal while it is sought."""
    with progress_bar() as progress:
        tasks = {name: progress.add_task(name, total=len(source)) for name, source in sources.items()}
        return {
            name: check(source, workers, partial(progress.advance, tasks[name])) for name, source in sources.items()
        }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="fastadv data", allow_abbrev=False, description="Look after a data set.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    summary = "find the images that do not decode, and have training leave them out"
    commands.add_parser("check", add_help=False, help=summary)
    return parser


def _check_parser() -> argparse.ArgumentParser:
    parser = create_parser(_CHECK, description=_DESCRIPTION, epilog=_EPILOG)
    parser.add_argument("folder", type=Path, metavar="DIR", help="the data set's folder")
    parser.add_argument(
        "--workers",
        type=partial(whole, most=MOST_THREADS),
        default=cores(),
        metavar="N",
        help="processes that decode (default: %(default)s)",
    )
    return parser
