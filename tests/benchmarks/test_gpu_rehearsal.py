"""python -m benchmarks.gpu rehearsed on the CPU, whole: all that runs on a GPU, but for the GPU."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.gpu import __main__ as command
from benchmarks.gpu.plan import GROUPS
from benchmarks.gpu.summary import Entry, Summary
from benchmarks.test_iterations import CLEAN, OPTIONS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def rows_of(report: Path, title: str) -> list[list[str]]:
    """The body of the table below a title."""
    lines = report.read_text().split(f"## {title}\n\n")[1].split("\n\n")[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_the_first_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("PYTEST_ADDOPTS", "-k 'not test_attacks'")  # which tests/fake_cuda runs
    code = command.main(["--rehearse", "--out", str(tmp_path)])
    said = capfd.readouterr().out[-6000:]
    assert code == 0, said
    entries = Summary(tmp_path).entries
    assert list(entries) == list(GROUPS["first"].parts)
    assert {entry.outcome for entry in entries.values()} == {"passed"}, said
    assert all("- hardware: " in (tmp_path / f"{name}.md").read_text() for name in entries)
    for title in ("Steps on a GPU", "Rows of logits on a GPU", "Targets"):
        assert len(rows_of(tmp_path / "bandwidth.md", title)) > 1, title
    variants = {row[2] for row in rows_of(tmp_path / "bandwidth.md", "Steps on a GPU")}
    assert {"fused", "copy", "x + 0"} < variants and not any("torch.compile" in name for name in variants)
    iterations = rows_of(tmp_path / "iterations.md", "Whole iterations of training")
    expected = [(0, one.name, "1.00") for one in CLEAN] + [(1, one.name, "1.33") for one in OPTIONS]
    assert [(int(row[2]), row[3], row[7]) for row in iterations] == expected  # of one small network


def test_the_second_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("PYTEST_ADDOPTS", "-k 'target_grad and float32'")  # of compiled
    test = "tests/gpu/test_operators.py::test_target_grad[label-torch.float32-(33, 129)]"
    summary = Summary(tmp_path)
    summary.put(Entry("tests", "failed", "2026-01-01", 120, failed_tests=[test]))
    summary.put(Entry("ncu", "stopped", "2026-01-01", 40))
    code = command.main(["--rehearse", "--parts", "second", "--out", str(tmp_path)])
    assert code == 0, capfd.readouterr().out[-6000:]
    entries = Summary(tmp_path).entries
    assert [(name, entry.outcome) for name, entry in entries.items()] == [
        *(("tests", "failed"), ("ncu", "stopped"), ("versions", "passed")),
        *(("failed", "passed"), ("compiled", "passed"), ("memcheck", "not run")),
    ]
    again, profiled = entries["failed"].checks
    assert again.startswith("tests that failed: 1 passed") and profiled.startswith("profiled: exit code 0")
    variants = {row[2] for row in rows_of(tmp_path / "compiled.md", "Rows of logits on a GPU")}
    assert variants == {"fused", "torch.compile, closed form", "copy", "x + 0"}
