"""What a part of the command is given, and what it finds."""

from __future__ import annotations

import re
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.gpu.processes import NO_TIME, PYTEST, Deadline, Done, run


@dataclass(frozen=True)
class Setting:
    """What a part runs with.

    Args:
        deadline: when the part has to be over.
        rehearsal: whether it is tried on the CPU, at small sizes.
        imagenette: folder or archive with its images.
        fashion_mnist: folder with its files.
    """

    deadline: Deadline
    rehearsal: bool = False
    imagenette: Path | None = None
    fashion_mnist: Path | None = None

    def limit(self, seconds: float) -> float:
        """That of a command: a rehearsal is in no hurry, on whatever machine it is."""
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
        right: whether nothing failed. What was stopped at its limit has not.
    """

    checks: list[str] = field(default_factory=list)
    tables: list[str] = field(default_factory=list)
    figure: str | None = None
    right: bool = True

    def add(self, done: Done, *, must_end: bool = False) -> None:
        """The outcome of a command; one that ``must_end`` is wrong if its time was too short."""
        self.checks.append(done.line)
        self.right &= done.code == 0 or (done.code is None and not must_end)

    def missing(self, name: str, why: str = NO_TIME) -> None:
        """Something that did not run."""
        self.checks.append(f"{name}: {why}")


def benchmark(findings: Findings, setting: Setting, name: str, file: str, seconds: float, **environment: str) -> None:
    """Run one file of the benchmarks for so many seconds; the tables that it has by then are among the findings."""
    limit = setting.limit(seconds)
    if limit <= 0:
        findings.missing(name)
        return
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.md"
        command = [*PYTEST, file, "--benchmark-quiet", "--report", str(report)]
        findings.add(run(name, command, limit, FASTADV_TEST_DEVICE=setting.device, **environment))
        if report.exists():
            text = report.read_text()
            findings.checks += re.findall(r"^- (not measured: .*)$", text, re.MULTILINE)
            findings.tables.append(sections(text))
        else:
            findings.missing(name, "it wrote no tables")


def sections(report: str) -> str:
    """A report without its head, which says what it was measured on."""
    _, separator, rest = report.partition("\n## ")
    return (separator + rest).strip()
