"""The options of ``fastadv evaluate`` that make a robustness card."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence

from fastadv.cli.arguments import Parser, number
from fastadv.cli.names import SUITES


def add_card_options(parser: argparse.ArgumentParser) -> None:
    """Add the suite, when to stop, and what to fail under."""
    add = parser.add_argument
    add(
        "--suite",
        choices=SUITES,
        metavar="NAME",
        help=f"make a robustness card, with the worst case per image over a suite of attacks: {', '.join(SUITES)}",
    )
    add(
        "--until",
        type=_points,
        metavar="POINTS",
        help="with --suite: draw images at random, by the seed, until the 95 %% interval of the worst case at each eps "
        "is within so many percentage points; it is valid though it decides when to stop",
    )
    add(
        "--fail-under",
        "--fail_under",
        type=_points,
        metavar="PERCENT",
        help="with --suite: exit with code 3 if the worst case of any network at any eps is below PERCENT",
    )


def check_card_options(parser: Parser, arguments: argparse.Namespace, argv: Sequence[str]) -> None:
    """Refuse options that do not go together."""
    if arguments.suite is None:
        for option, value in (("--until", arguments.until), ("--fail-under", arguments.fail_under)):
            if value is not None:
                parser.error(f"{option} is for a robustness card: add --suite {SUITES[0]}")
        return
    if any(word.split("=")[0] == "--attacks" for word in argv):
        parser.error("--suite names the attacks: leave out --attacks, or measure yours by a command without --suite")
    if not arguments.early_stop:
        parser.error("--suite counts an image as misclassified at any iterate: leave out --no-early-stop")
    if arguments.until is not None and arguments.save_images is not None:
        parser.error("--save-images is not for --until, which shows examples of its own on the card")


def _points(text: str) -> float:
    value = number(text)
    if not 0 < value <= 100 or math.isnan(value):
        raise argparse.ArgumentTypeError(f"must be above 0 and at most 100, in percent, got {text!r}")
    return value
