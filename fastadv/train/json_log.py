"""JsonLog: a run's records as lines of JSON, which a resumed run continues."""

from __future__ import annotations

import json
import os
import warnings
from dataclasses import asdict
from pathlib import Path

from fastadv.train.run_records import Record
from fastadv.utils.plain_json import parse_json
from fastadv.utils.regular_files import read_regular
from fastadv.utils.text import counted


class JsonLog:
    """One JSON object per record, a line each, appended to ``path``.

    Args:
        path: the file.
        step: the run's current iteration. Lines of later iterations, which the run wrote after its last checkpoint, are
            removed so that none is there twice.

    Raises:
        OSError: if it is a device or a pipe, or cannot be written to.

    Warns:
        UserWarning: if lines are not records of a run. They are removed, and a copy of the file is kept.
    """

    def __init__(self, path: Path, *, step: int) -> None:
        if path.exists():
            _keep_until(path, step)
        self._file = path.open("a", encoding="utf-8")

    def write(self, record: Record) -> None:
        """Append the record and flush it to the operating system."""
        self._file.write(json.dumps(asdict(record)) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _keep_until(path: Path, step: int) -> None:
    content = read_regular(path)
    lines = content.splitlines(keepends=True)
    steps = [_step_of(line) for line in lines]
    whole = len(lines) if content.endswith(b"\n") else len(lines) - 1  # the last may have been cut short
    if strange := steps[: max(0, whole)].count(None):
        damaged = path.with_name(path.name + ".damaged")
        damaged.write_bytes(content)
        warnings.warn(
            f"{counted(strange, 'line')} of {path} are not records of a run and were removed; {damaged} is a copy of "
            f"the file",
            stacklevel=2,
        )
    shorter = path.with_name(path.name + ".partial")
    shorter.write_bytes(b"".join(line for line, of in zip(lines, steps, strict=True) if of is not None and of <= step))
    os.replace(shorter, path)


def _step_of(line: bytes) -> int | None:
    """The step in a line of the log; None if it is not a record."""
    try:
        step = parse_json(line)["step"]
    except (ValueError, TypeError, LookupError):
        return None
    return step if type(step) is int else None
