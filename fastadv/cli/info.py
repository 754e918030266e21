"""``fastadv info``: versions, compiled kernels, and what is missing with the command that would add it."""

from __future__ import annotations

import argparse

from fastadv.utils.environment import report

_DESCRIPTION = "Show versions, compiled kernels, and what is missing with the command that would add it."


def main(argv: list[str]) -> int:
    """The command."""
    argparse.ArgumentParser(prog="fastadv info", description=_DESCRIPTION).parse_args(argv)
    print(report())
    return 0
