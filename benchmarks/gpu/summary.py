"""The outcome of each part, in a file that is updated after each part and read by later runs."""

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
    """The outcome of one part.

    Args:
        part: name of the part.
        outcome: passed, failed, stopped (at its limit), not run, or running if the command was killed there.
        seconds: time that it took.
        limit: its time limit.
        begun: date and time of its start.
        checks: one line per command.
        failed_tests: names of the failed tests.
        last_lines: last lines of the commands that failed.
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
        """Whether the part has to be run again."""
        return self.outcome not in ("passed", "not run")


class Summary:
    """The entries of a folder, by part; running a part again replaces its entry.

    Args:
        folder: the folder of the file, which need not exist yet.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME
        found = json.loads(self.path.read_text()) if self.path.exists() else []
        self.entries = {values["part"]: Entry(**values) for values in found}

    def forget(self, parts: Collection[str]) -> None:
        """Remove the entries of parts that are about to run."""
        self.entries = {name: entry for name, entry in self.entries.items() if name not in parts}

    def put(self, entry: Entry) -> None:
        """Write an entry to the file, atomically."""
        self.entries[entry.part] = entry
        written = self.path.with_suffix(".new")
        written.write_text(json.dumps([asdict(one) for one in self.entries.values()], indent=1) + "\n")
        os.replace(written, self.path)

    def text(self, parts: Collection[str]) -> str:
        """One line for each check of these parts."""
        lines = []
        for entry in (self.entries[name] for name in parts if name in self.entries):
            lines.append(f"{entry.part:12} {entry.outcome:8} {entry.seconds:4.0f} of {entry.limit:.0f} s")
            lines += [f"    {check}" for check in entry.checks]
        return "\n".join(lines)
