"""``fastadv data check``: find the images of a data set that do not decode."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from fastadv.cli.arguments import Parser, create_parser, parse, whole
from fastadv.cli.exits import imported
from fastadv.cli.names import MANIFEST
from fastadv.utils.devices import MOST_THREADS

_CHECK = "fastadv data check"
_DESCRIPTION = """\
Decode every image of a data set in full, and list those that do not decode: files that are truncated, damaged, empty or
unreadable, that are not in a format that is read, that have more than 179 megapixels (Pillow's limit), 256 MiB, or 32
bits a channel. Both loaders use all others: DALI leaves to Pillow what it does not decode itself. Damage that decoders
tolerate, such as wrong pixels in the middle of a JPEG, is not found.

The data set is a folder with train/CLASS/IMAGE and val/CLASS/IMAGE, or with shards in train/ and val/ (WebDataset's
*.tar, or TFRecord files). If one of the two is missing, only the other is checked: an evaluation needs only val/.
"""

_EPILOG = f"""\
The result is written to DIR/{MANIFEST}. If DIR is read-only, create a writable directory of symlinks to its contents
and use that, here and in training. Training and evaluation on DIR then skip the files that are listed, and say how
many. In training, the next image takes the place of each, so a run that was started earlier continues as before (with
DALI it also used files that are damaged below the window that it crops). If files were added, removed or repaired
since, the result is rejected as stale: run the command again. Files in class folders whose names are not those of
images, such as .gif or .txt, are counted but never read.

example:
  fastadv data check /data/imagenet

exit codes:
  0         all images decode
  1         some do not, the result could not be written, or a process was
            killed
  2         a mistake in the command or the data set, or DIR is not writable
  130, 143  stopped by SIGINT (Ctrl-C) or SIGTERM
"""


def main(argv: Sequence[str]) -> int:
    """Run ``fastadv data`` with these arguments; returns the exit code."""
    _parser().parse_args(argv[:1])
    arguments = parse(_check_parser(), argv[1:])
    code: int = imported("fastadv.cli.check_images", _CHECK).run(arguments.folder, arguments.workers)
    return code


def _parser() -> Parser:
    parser = create_parser("fastadv data", description="Look after a data set.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    summary = "find the images that do not decode, and have training skip them"
    commands.add_parser("check", add_help=False, help=summary)
    return parser


def _check_parser() -> Parser:
    parser = create_parser(_CHECK, description=_DESCRIPTION, epilog=_EPILOG)
    parser.add_argument("folder", type=Path, metavar="DIR", help="the data set's folder")
    parser.add_argument(
        "--workers",
        type=partial(whole, most=MOST_THREADS),
        metavar="N",
        help="processes that decode (default: one per core)",
    )
    return parser
