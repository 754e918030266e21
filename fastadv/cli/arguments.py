"""What the parsers of the commands have in common, and advice where argparse has none."""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import takewhile
from pathlib import Path

from fastadv.utils import devices
from fastadv.utils.suggestions import did_you_mean, nearest


def create_parser(prog: str, *, description: str, epilog: str) -> argparse.ArgumentParser:
    """A parser whose help keeps the lines of these texts; an option is given whole."""
    return argparse.ArgumentParser(
        prog=prog,
        allow_abbrev=False,
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def parse(parser: argparse.ArgumentParser, argv: Sequence[str]) -> argparse.Namespace:
    """What the arguments say. A mistake ends the program with exit code 2 and a line that says what was meant.

    Options whose metavar ends in ",..." take a list as one word: several words are a mistake of their own, for argparse
    takes the others for arguments.
    """
    for option, words in _split_lists(parser, argv):
        joined = ",".join(word.strip(",") for word in words)
        parser.error(f"argument {option}: a list is one word with commas, as in {option} {joined}")
    namespace, rest = parser.parse_known_args(argv)
    if rest:
        options = [word.partition("=")[0].replace("_", "-") for word in rest if word.startswith("--")]
        known = [option for option in parser._option_string_actions if "_" not in option]
        near = nearest(options[0], known) if options else []
        parser.error(f"unrecognized arguments: {' '.join(rest)}{did_you_mean(near)}")
    return namespace


def _split_lists(parser: argparse.ArgumentParser, argv: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """Options that take a list and were given more than one word of it."""
    for place, word in enumerate(argv, start=1):
        action = parser._option_string_actions.get(word)
        if action is not None and str(action.metavar).endswith(",..."):
            words = list(takewhile(partial(_could_be, action), argv[place:]))
            if len(words) > 1:
                yield word, words


def _could_be(action: argparse.Action, word: str) -> bool:
    """Whether a word is a value of an option, rather than an option or a file."""
    if word.startswith("-") or Path(word).exists() or not callable(action.type):
        return False
    try:
        action.type(word.strip(","))
    except argparse.ArgumentTypeError:
        return False
    return True


def add_machine_options(parser: argparse.ArgumentParser) -> None:
    """The options that say what to compute on."""
    add = parser.add_argument
    add("--device", default="auto", help="cpu, cuda, cuda:1, ...; auto is cuda where there is one (default: auto)")
    add(
        "--threads",
        type=partial(whole, most=devices.MOST_THREADS),
        metavar="N",
        help="CPU threads (default: PyTorch's own choice)",
    )


def number(text: str) -> float:
    """A number, or NaN if the text is none, which no range has."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def whole(text: str, least: int = 1, most: int = 2**63 - 1) -> int:
    """A whole number in a range."""
    if not text.isdecimal() or not least <= int(text) <= most:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least {least} and at most {most}, got {text!r}")
    return int(text)
