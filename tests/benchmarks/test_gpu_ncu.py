"""The part ncu of python -m benchmarks.gpu: what it makes of the profiler's output, and where there is none."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from benchmarks.gpu import ncu, profiled
from benchmarks.gpu.part import Findings, Setting
from benchmarks.gpu.processes import Deadline

HEADER = (
    '"ID","Process ID","Process Name","Host Name","Kernel Name","Context","Stream","Block Size","Grid Size","Device",'
    '"CC","Section Name","Metric Name","Metric Unit","Metric Value"'
)


def row(number: int, kernel: str, metric: str, unit: str, value: str) -> str:
    place = '"1","7","(256, 1, 1)","(1184, 1, 1)","0","9.0","Command line profiler metrics"'
    return f'"{number}","11","python3","host","{kernel}",{place},"{metric}","{unit}","{value}"'


ROWS = [
    row(0, "step_kernel", "dram__bytes_read.sum", "Mbyte", "231.21"),
    row(0, "step_kernel", "gpu__time_duration.sum", "us", "80.5"),
    row(0, "step_kernel", "dram__throughput.avg.pct_of_peak_sustained_elapsed", "%", "91.25"),
    row(1, "step_kernel", "gpu__time_duration.sum", "us", "1,024.5"),
    row(2, "target_kernel", "launch__registers_per_thread", "register/thread", "32"),
]
OUTPUT = "\n".join(["==PROF== Connected to process 11", profiled.DONE, "==PROF== Disconnected", HEADER, *ROWS]) + "\n"


def under(script: str, monkeypatch: pytest.MonkeyPatch, folder: Path) -> Findings:
    """What is found with a script in the place of the profiler."""
    program = folder / "ncu"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    return ncu.ncu(Setting(Deadline(time.monotonic() + 60)))


def test_a_row_for_each_kernel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "output").write_text(OUTPUT)
    findings = under(f"echo $* > {tmp_path}/asked; cat {tmp_path}/output", monkeypatch, tmp_path)
    assert findings.outcome == "passed"
    [text] = findings.tables
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()[4:]]
    assert rows == [
        ["0 step_kernel", "80.5 us", "231.21 Mbyte", "", "91.25", "", "", ""],
        ["1 step_kernel", "1,024.5 us", *[""] * 6],
        ["2 target_kernel", *[""] * 6, "32 register/thread"],
    ]
    asked = (tmp_path / "asked").read_text()
    assert "--profile-from-start off" in asked and asked.endswith("-m benchmarks.gpu.profiled\n")


@pytest.mark.parametrize(
    ("script", "outcome", "said"),
    [
        (
            f"echo {profiled.DONE}; echo '==ERROR== ERR_NVGPUCTRPERM - no permission'; exit 1",
            *("not run", "ncu: not run: it does not work here (==ERROR== ERR_NVGPUCTRPERM - no permission)"),
        ),
        (f"echo {profiled.DONE}", "not run", "ncu: not run: it does not work here (it says nothing)"),
        ("echo 'RuntimeError: a fault'; exit 1", "failed", "ncu: exit code 1: RuntimeError: a fault (0 s)"),
    ],
)
def test_without_the_profilers_output(
    script: str, outcome: str, said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    findings = under(script, monkeypatch, tmp_path)
    assert (findings.outcome, findings.checks, findings.tables) == (outcome, [said], [])


def test_without_the_profiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    findings = ncu.ncu(Setting(Deadline(time.monotonic() + 60)))
    assert findings.checks == ["ncu: not run: ncu is not on PATH (it is part of the CUDA toolkit)"]
    assert findings.outcome == "not run"


def test_five_operators_are_profiled() -> None:
    assert len(profiled.work("cpu", 1)) == 5
