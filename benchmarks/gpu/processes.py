"""Runs commands within time limits, and reports their outcomes."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PYTEST = [sys.executable, "-m", "pytest", "-q"]
GRACE = 10  # maximum seconds before a command's limit at which it is interrupted, to write what it has
LAST = 40  # lines shown of a failed command
NO_TIME = "not run: no time was left"


@dataclass
class Done:
    """The outcome of a command."""

    name: str
    command: Sequence[str]
    seconds: float
    code: int | None  # None: stopped at its limit
    output: str

    @property
    def outcome(self) -> str:
        """The last line of pytest, or whatever else is known."""
        closing = re.findall(r"^=* ?(\d+ (?:passed|failed|skipped|error).*?) in [\d.]+s.*$", self.output, re.MULTILINE)
        if self.code is None:
            return "stopped at its limit of time" + (f": {closing[-1]}" if closing else "")
        if closing:
            return closing[-1]
        lines = [line for line in self.output.splitlines() if line.strip()]
        return f"exit code {self.code}" + (f": {lines[-1].strip()}" if self.code and lines else "")

    @property
    def line(self) -> str:
        """Name, outcome and time, for a report."""
        return f"{self.name}: {self.outcome} ({self.seconds:.0f} s)"

    @property
    def last_lines(self) -> list[str]:
        """The last lines of output."""
        return self.output.rstrip().splitlines()[-LAST:]

    @property
    def failed_tests(self) -> list[str]:
        """Names of the failed tests; none if the command was stopped, because too few of them ran."""
        if self.code is None:
            return []
        return list(dict.fromkeys(re.findall(r"^(?:FAILED|ERROR) (\S+::.*?)(?: - .*)?$", self.output, re.MULTILINE)))


@dataclass(frozen=True)
class Deadline:
    """The time when everything must have finished."""

    at: float  # of time.monotonic()

    def share(self, seconds: float) -> float:
        """The limit of a command: the given seconds, or the remaining time if that is less."""
        return min(seconds, self.at - time.monotonic())


def run(name: str, command: Sequence[str], limit: float, **environment: str) -> Done:
    """Run a command within a time limit. Shortly before, it is interrupted, so that it can write its results."""
    print(f"{name}: {' '.join(command)}", flush=True)
    start = time.perf_counter()
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, **environment},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # its own process group, to signal
            preexec_fn=_heed_interrupts,
        )
        try:
            grace = min(GRACE, limit / 3)
            code = _wait(process, limit - grace)
            if code is None:
                os.killpg(process.pid, signal.SIGINT)
                _wait(process, grace)
        finally:  # end remaining processes, also if the command ended or this one is interrupted
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        output.seek(0)
        done = Done(name, command, time.perf_counter() - start, code, output.read())
    print(f"  {done.outcome}, {done.seconds:.0f} s", flush=True)
    if done.code != 0:
        print("\n".join(done.last_lines), flush=True)
    return done


def _heed_interrupts() -> None:
    """Shells ignore interrupts in background processes, which children would inherit."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _wait(process: subprocess.Popen[bytes], limit: float) -> int | None:
    try:
        return process.wait(max(limit, 0))
    except subprocess.TimeoutExpired:
        return None
