"""The input and the findings of a part."""

from __future__ import annotations

import math
import re
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.gpu.processes import NO_TIME, PYTEST, Deadline, Done, run
from benchmarks.gpu.summary import Entry


@dataclass(frozen=True)
class Setting:
    """The settings that a part runs with.

    Args:
        deadline: when the part must have finished.
        rehearsal: whether it runs on the CPU at small sizes.
        build: whether to rebuild the extension.
        failed: the parts that failed in an earlier run.
        imagenette: folder or archive of Imagenette.
        fashion_mnist: folder of Fashion-MNIST.
    """

    deadline: Deadline
    rehearsal: bool = False
    build: bool = False
    failed: tuple[Entry, ...] = ()
    imagenette: Path | None = None
    fashion_mnist: Path | None = None

    def limit(self, seconds: float = math.inf) -> float:
        """The limit of a command: the given seconds, or all of the remaining time. Rehearsals get plenty of time."""
        return self.deadline.share(900 if self.rehearsal else seconds)

    @property
    def device(self) -> str:
        """The device that everything runs on."""
        return "cpu" if self.rehearsal else "cuda"


@dataclass
class Findings:
    """The findings of a part.

    Args:
        checks: a line for each command or other fact that a reader should know first.
        tables: Markdown sections.
        figure: a figure as SVG.
        right: whether nothing failed. A command stopped at its limit has failed, unless that is allowed.
        stopped: whether a command was stopped that should have finished.
        ran: number of commands that ran.
        failed_tests: names of the failed tests, for commands that finished.
        last_lines: last lines of output of the commands that failed.
    """

    checks: list[str] = field(default_factory=list)
    tables: list[str] = field(default_factory=list)
    figure: str | None = None
    right: bool = True
    stopped: bool = False
    ran: int = 0
    failed_tests: list[str] = field(default_factory=list)
    last_lines: dict[str, list[str]] = field(default_factory=dict)

    @property
    def outcome(self) -> str:
        """The outcome in a word or two."""
        if not self.right:
            return "stopped" if self.stopped else "failed"
        return "passed" if self.ran else "not run"

    def add(self, done: Done, *, may_be_stopped: bool = False, line: str | None = None) -> None:
        """Add the outcome of a command. One that ``may_be_stopped`` at its limit has written partial results."""
        self.checks.append(line or done.line)
        self.ran += 1
        if done.code == 0 or (done.code is None and may_be_stopped):
            return
        self.wrong(done)

    def wrong(self, done: Done) -> None:
        """Record a command that failed or was stopped."""
        self.right = False
        self.stopped |= done.code is None
        self.failed_tests += done.failed_tests
        self.last_lines[done.name] = done.last_lines

    def include(self, other: Findings) -> None:
        """Merge other findings."""
        self.checks += other.checks
        self.tables += other.tables
        self.right &= other.right
        self.stopped |= other.stopped
        self.ran += other.ran
        self.failed_tests += other.failed_tests
        self.last_lines |= other.last_lines

    def missing(self, name: str, why: str = NO_TIME) -> None:
        """Record something that did not run."""
        self.checks.append(f"{name}: {why}")

    def lacks(self, name: str, what: str) -> None:
        """Record missing output that a command should have written even in a short time."""
        self.missing(name, f"it wrote no {what}")
        self.right = False


def benchmark(
    findings: Findings,
    setting: Setting,
    name: str,
    file: str,
    seconds: float = math.inf,
    *,
    may_be_stopped: bool = False,
    **environment: str,
) -> None:
    """Run one benchmark file within a time limit, and add its tables to the findings."""
    limit = setting.limit(seconds)
    if limit <= 0:
        findings.missing(name)
        return
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.md"
        command = [*PYTEST, file, "--benchmark-quiet", "--report", str(report)]
        done = run(name, command, limit, FASTADV_TEST_DEVICE=setting.device, **environment)
        findings.add(done, may_be_stopped=may_be_stopped)
        if report.exists():
            text = report.read_text()
            findings.checks += re.findall(r"^- (not measured: .*)$", text, re.MULTILINE)
            findings.tables.append(sections(text))
        else:
            findings.lacks(name, "tables")


def sections(report: str) -> str:
    """A report without its head, which describes the machine."""
    _, separator, rest = report.partition("\n## ")
    return (separator + rest).strip()
