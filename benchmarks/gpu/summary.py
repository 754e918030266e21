"""How each part of the command ended: a file that is written anew after each, and read by a later call."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

NAME = "summary.json"
RUNNING = "running"


@dataclass(frozen=True)
class Entry:
    """One part.

    Args:
        part: its name.
        outcome: passed, failed, stopped at its limit, not run, or running: the command was killed there.
        seconds: that it took.
        limit: that it had.
        begun: date and time.
        checks: a line for each command.
        failed_tests: the test runner's names of those that failed.
        last_lines: of the commands that failed.
    """

    part: str
    outcome: str
    begun: str
    limit: float
    seconds: float = 0.0
    checks: Sequence[str] = ()
    failed_tests: Sequence[str] = ()
    last_lines: dict[str, list[str]] = field(default_factory=dict)

    @property
    def wrong(self) -> bool:
        """Whether it has to be run again."""
        return self.outcome not in ("passed", "not run")


class Summary:
    """The entries of a folder, by part; a part that is run again has its new entry alone.

    Args:
        folder: that holds the file, if there is one yet.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME
        found = json.loads(self.path.read_text()) if self.path.exists() else []
        self.entries = {values["part"]: Entry(**values) for values in found}

    def forget(self, parts: Collection[str]) -> None:
        """Those of parts that are about to run."""
        self.entries = {name: entry for name, entry in self.entries.items() if name not in parts}

    def put(self, entry: Entry) -> None:
        """Write an entry to the file, which is whole at any time."""
        self.entries[entry.part] = entry
        written = self.path.with_suffix(".new")
        written.write_text(json.dumps([asdict(one) for one in self.entries.values()], indent=1) + "\n")
        os.replace(written, self.path)

    def text(self, parts: Collection[str]) -> str:
        """A line for each check of these parts."""
        lines = []
        for entry in (self.entries[name] for name in parts if name in self.entries):
            lines.append(f"{entry.part:12} {entry.outcome:8} {entry.seconds:4.0f} of {entry.limit:.0f} s")
            lines += [f"    {check}" for check in entry.checks]
        return "\n".join(lines)
