"""The page of commands has all of them, and the README all attacks."""

from __future__ import annotations

import re
from pathlib import Path

from fastadv import attacks
from fastadv.cli import COMMANDS

ROOT = Path(__file__).parents[2]


def test_every_command_is_on_the_page() -> None:
    shown = re.findall(r"```\{command-help\} ?(\w*)", (ROOT / "docs" / "cli.md").read_text())
    assert sorted(shown) == sorted(["", *COMMANDS])


def test_the_lists_of_attacks_are_complete() -> None:
    for page in ("README.md", "docs/attacks.md"):
        text = (ROOT / page).read_text()
        assert not [name for name in attacks.names() if f"`{name}`" not in text], page
