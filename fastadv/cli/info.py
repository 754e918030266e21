"""``fastadv info``: versions, compiled kernels, and how to add what is missing."""

from __future__ import annotations

from fastadv.cli.arguments import create_parser, parse
from fastadv.cli.exits import imported

_DESCRIPTION = "Show versions and compiled kernels, and the commands that add what is missing."


def main(argv: list[str]) -> int:
    """Run ``fastadv info`` with these arguments; returns the exit code."""
    parse(create_parser("fastadv info", description=_DESCRIPTION), argv)
    print(imported("fastadv.utils.environment", "fastadv info").report())
    return 0
