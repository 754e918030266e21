"""What a part of the command is given, and what it finds."""

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
    """What a part runs with.

    Args:
        deadline: when the part has to be over.
        rehearsal: whether it is tried on the CPU, at small sizes.
        build: whether the extension is built anew.
        failed: the parts that failed in an earlier call.
        imagenette: folder or archive with its images.
        fashion_mnist: folder with its files.
    """

    deadline: Deadline
    rehearsal: bool = False
    build: bool = False
    failed: tuple[Entry, ...] = ()
    imagenette: Path | None = None
    fashion_mnist: Path | None = None

    def limit(self, seconds: float = math.inf) -> float:
        """That of a command, the whole of what is left unless given; a rehearsal is in no hurry, wherever it is."""
        return self.deadline.share(900 if self.rehearsal else seconds)

    @property
    def device(self) -> str:
        """Where it all runs."""
        return "cpu" if self.rehearsal else "cuda"


@dataclass
class Findings:
    """What a part found.

    Args:
        checks: a line for each command, or for what else is to be known beforehand.
        tables: sections of Markdown.
        figure: SVG.
        right: whether nothing failed. What was stopped at its limit has, unless it may be.
        stopped: whether something was that may not be.
        ran: how many commands.
        failed_tests: their names, of commands that ran to their end.
        last_lines: of the commands that failed.
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
        """In a word or two."""
        if not self.right:
            return "stopped" if self.stopped else "failed"
        return "passed" if self.ran else "not run"

    def add(self, done: Done, *, may_be_stopped: bool = False, line: str | None = None) -> None:
        """The outcome of a command; one that ``may_be_stopped`` at its limit wrote what it had by then."""
        self.checks.append(line or done.line)
        self.ran += 1
        if done.code == 0 or (done.code is None and may_be_stopped):
            return
        self.wrong(done)

    def wrong(self, done: Done) -> None:
        """A command that failed, or was stopped."""
        self.right = False
        self.stopped |= done.code is None
        self.failed_tests += done.failed_tests
        self.last_lines[done.name] = done.last_lines

    def include(self, other: Findings) -> None:
        """What else was found."""
        self.checks += other.checks
        self.tables += other.tables
        self.right &= other.right
        self.stopped |= other.stopped
        self.ran += other.ran
        self.failed_tests += other.failed_tests
        self.last_lines |= other.last_lines

    def missing(self, name: str, why: str = NO_TIME) -> None:
        """Something that did not run."""
        self.checks.append(f"{name}: {why}")

    def lacks(self, name: str, what: str) -> None:
        """Something that a command should have written, however short its time was."""
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
    """Run one file of the benchmarks, for so many seconds at most; the tables that it wrote are among the findings."""
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
    """A report without its head, which says what it was measured on."""
    _, separator, rest = report.partition("\n## ")
    return (separator + rest).strip()
