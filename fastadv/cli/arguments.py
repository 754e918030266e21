"""Parsers of the commands: help as wide as the terminal, and a mistake as one line that says what was meant."""

from __future__ import annotations

import argparse
import math
import sys
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import Any, NoReturn

from fastadv.utils.devices import MOST_THREADS
from fastadv.utils.launch import launched
from fastadv.utils.suggestions import did_you_mean, nearest
from fastadv.utils.text import printable_lines

_LARGEST = 2**63 - 1  # int64's


class FilledHelp(argparse.HelpFormatter):
    """Fills paragraphs to the width of the terminal, keeps indented lines, and breaks no word, not even at a hyphen."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "\n\n".join("\n".join(_filled(paragraph, width)) for paragraph in text.strip("\n").split("\n\n"))

    def _split_lines(self, text: str, width: int) -> list[str]:
        return _filled(" ".join(text.split()), width)


def _filled(text: str, width: int) -> list[str]:
    """The lines of one paragraph; lines in it that are indented stay as they are."""
    lines: list[str] = []
    words: list[str] = []
    for line in [*text.splitlines(), " "]:
        if line.startswith(" "):
            lines += textwrap.wrap(" ".join(words), width, break_long_words=False, break_on_hyphens=False)
            lines += [line] * bool(line.strip())
            words = []
        else:
            words += line.split()
    return lines


class Parser(argparse.ArgumentParser):
    """A parser that reports a mistake by one line, and says where its help is."""

    def error(self, message: str) -> NoReturn:
        if launched().main:
            print(f"{self.prog}: {printable_lines(message)}\nSee {self.prog} --help.", file=sys.stderr)
        raise SystemExit(2)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            accepted = list(map(str, action.choices))
            meant = did_you_mean(nearest(str(value), accepted))
            raise argparse.ArgumentError(action, f"must be one of {', '.join(accepted)}, got {value!r}{meant}")


def create_parser(prog: str, *, description: str, epilog: str = "") -> Parser:
    """Create a parser whose options must be given in full.

    Args:
        prog: the command.
        description: paragraphs, which are filled, and indented lines, which are kept.
        epilog: the same, below the options.
    """
    return Parser(prog=prog, allow_abbrev=False, description=description, epilog=epilog, formatter_class=FilledHelp)


def parse(parser: argparse.ArgumentParser, argv: Sequence[str]) -> argparse.Namespace:
    """Parse the arguments; a mistake exits with code 2 and says what was probably meant.

    Options whose metavar ends in ",..." take a list as one word. Several words are reported as such, since argparse
    would take the others for positional arguments.
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
    """Yield each option that takes a list and was given more than one word of it, with these words."""
    for place, word in enumerate(argv, start=1):
        action = parser._option_string_actions.get(word)
        if action is not None and str(action.metavar).endswith(",..."):
            words = list(takewhile(partial(_could_be, action), argv[place:]))
            if len(words) > 1:
                yield word, words


def _could_be(action: argparse.Action, word: str) -> bool:
    """True if a word can be a value of an option, rather than an option or a file."""
    if word.startswith("-") or Path(word).exists() or not callable(action.type):
        return False
    try:
        action.type(word.strip(","))
    except argparse.ArgumentTypeError:
        return False
    return True


def add_machine_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say where to compute."""
    add = parser.add_argument
    add("--device", default="auto", help="cpu, cuda, cuda:1, ...; auto is cuda if there is a GPU (default: auto)")
    add(
        "--threads",
        type=partial(whole, most=MOST_THREADS),
        metavar="N",
        help="CPU threads (default: PyTorch's choice)",
    )


def one_of(accepted: Iterable[str]) -> str:
    """Accepted values for a help text: ``a, b or c``."""
    *others, last = accepted
    return f"{', '.join(others)} or {last}"


def number(text: str) -> float:
    """Convert to float; text that is not a number gives NaN, which lies in no range."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def whole(text: str, least: int = 1, most: int = _LARGEST) -> int:
    """Convert to an integer in a range."""
    if not text.isdecimal() or not least <= int(text) <= most:
        matters = most < _LARGEST or (text.isdecimal() and int(text) > most)
        upper = f" and at most {most}" if matters else ""
        raise argparse.ArgumentTypeError(f"must be a whole number of at least {least}{upper}, got {text!r}")
    return int(text)
