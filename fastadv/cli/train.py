"""``fastadv train``: train a network, or continue a run."""

from __future__ import annotations

from collections.abc import Sequence

from fastadv.cli.exits import ending, imported
from fastadv.utils.launch import launched


def main(argv: Sequence[str]) -> int:
    """Run ``fastadv train`` with these arguments; returns the exit code."""
    if _asks_for_help(argv):
        with ending("fastadv train") as end:
            imported("fastadv.cli.train_options", "fastadv train").parse(argv)  # prints the help, and exits
        return end.code
    code: int = imported("fastadv.cli.run_training", "fastadv train").run(argv)
    return code


def _asks_for_help(argv: Sequence[str]) -> bool:
    """True if the help can be shown without PyTorch: that of a run is read from its checkpoint."""
    words = {word.partition("=")[0] for word in argv}
    return launched().alone and "--resume" not in words and not words.isdisjoint(("-h", "--help"))
