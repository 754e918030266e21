"""Commands that a part runs, each within a limit of time, and what became of them."""

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
GRACE = 10  # seconds at most of a command's limit in which it is interrupted and writes what it has
LAST = 40  # lines of a command that failed
NO_TIME = "not run: no time was left"


@dataclass
class Done:
    """What became of one command."""

    name: str
    command: Sequence[str]
    seconds: float
    code: int | None  # None: stopped at its limit
    output: str

    @property
    def outcome(self) -> str:
        """The test runner's closing line, or what else is known."""
        closing = re.findall(r"^=* ?(\d+ (?:passed|failed|skipped|error).*?) in [\d.]+s.*$", self.output, re.MULTILINE)
        if self.code is None:
            return "stopped at its limit of time" + (f": {closing[-1]}" if closing else "")
        if closing:
            return closing[-1]
        lines = [line for line in self.output.splitlines() if line.strip()]
        return f"exit code {self.code}" + (f": {lines[-1].strip()}" if self.code and lines else "")

    @property
    def line(self) -> str:
        """Name, outcome and time, as a report has it."""
        return f"{self.name}: {self.outcome} ({self.seconds:.0f} s)"

    @property
    def last_lines(self) -> list[str]:
        """What it said at its end."""
        return self.output.rstrip().splitlines()[-LAST:]

    @property
    def failed_tests(self) -> list[str]:
        """The test runner's names of the tests that failed; none where it was stopped, which ran too few to know."""
        if self.code is None:
            return []
        return list(dict.fromkeys(re.findall(r"^(?:FAILED|ERROR) (\S+::.*?)(?: - .*)?$", self.output, re.MULTILINE)))


@dataclass(frozen=True)
class Deadline:
    """When everything has to be over."""

    at: float  # of time.monotonic()

    def share(self, seconds: float) -> float:
        """The limit of a command: so many seconds, or what is left of the whole."""
        return min(seconds, self.at - time.monotonic())


def run(name: str, command: Sequence[str], limit: float, **environment: str) -> Done:
    """Run a command within a limit of seconds; before it, a command is interrupted and can still write what it has."""
    print(f"{name}: {' '.join(command)}", flush=True)
    start = time.perf_counter()
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, **environment},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a group of its own, to signal
            preexec_fn=_heed_interrupts,
        )
        try:
            grace = min(GRACE, limit / 3)
            code = _wait(process, limit - grace)
            if code is None:
                os.killpg(process.pid, signal.SIGINT)
                _wait(process, grace)
        finally:  # whoever is left, also of a command that ended or when this one is interrupted
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
    """Shells start what runs in the background with interrupts ignored, and so would its children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _wait(process: subprocess.Popen[bytes], limit: float) -> int | None:
    try:
        return process.wait(max(limit, 0))
    except subprocess.TimeoutExpired:
        return None
