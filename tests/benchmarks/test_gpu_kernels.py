"""Tests and sanitizers of python -m benchmarks.gpu, and how it measures an operator."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from benchmarks import harness
from benchmarks import test_kernels as kernels
from benchmarks.gpu import sanitizers
from benchmarks.gpu.part import Findings, Setting
from benchmarks.gpu.processes import PYTEST, ROOT, Deadline, Done
from benchmarks.gpu.tests import SMOKE, TESTS
from tests.completeness import check_complete, operators

pytestmark = pytest.mark.slow


def test_every_file_with_tests_of_a_gpu_is_run() -> None:
    tests = ROOT / "tests"
    marked = {path for path in tests.rglob("test_*.py") if re.search(r"\bpytest\.mark\.gpu\b", path.read_text())}
    named = [ROOT / name for name in TESTS]
    assert {path for path in marked if not any(path.is_relative_to(name) for name in named)} == set()
    assert all(any(path.is_relative_to(name) for path in marked) for name in named)


def test_what_is_tested_first_exists_and_is_not_tested_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[list[str]] = []

    def run(name: str, words: list[str], limit: float, **environment: str) -> Done:
        ran.append(words[words.index("gpu") + 1 :])  # behind -m gpu
        return Done(name, words, 1.0, 0, "")

    module = importlib.import_module("benchmarks.gpu.tests")
    monkeypatch.setattr(module, "run", run)
    for part in (module.smoke, module.trainer, module.tests):
        part(Setting(Deadline(time.monotonic() + 60), rehearsal=True))
    smoke, trainer, others = ran
    first, later = (
        set(re.findall(r"^tests/gpu/.*::.*$", collected(words).stdout, re.MULTILINE))
        for words in ([*smoke, *trainer], others)
    )
    assert all(any(test.startswith(name) for test in first) for name in (*SMOKE, *trainer))
    assert len(later) > 1000 and not later & first


def collected(names: list[str]) -> subprocess.CompletedProcess[str]:
    words = [*PYTEST, "--collect-only", *names]
    return subprocess.run(words, capture_output=True, text=True, cwd=ROOT, timeout=300)


# --- compute-sanitizer -----------------------------------------------------------------------------------------------

SHOWS = {
    "sign_step_": r"\[sign-",
    "normalized_step_": r"\[(l2|linf)-",
    "apgd_step_": r"\[apgd_(linf|l2)-",
    "keep_best_": "test_keep_best",
    "noise_step_": r"\[noise_",
    "from_pixels_": "test_from_pixels",
    "truncated_normal_": "test_drawn_eps",
    "sample_eps": "test_drawn_eps",
    "target_grad": "test_target_grad",
    "scaled_target_grad": "test_target_grad",  # the same kernel
    "row_losses": "test_row_losses",
    "mixed_cross_entropy": "test_mixed_cross_entropy",
    "scaled_kl_grad": "test_scaled_kl_grad",
    "trades_loss": "test_trades_loss",
}


@pytest.mark.parametrize("tool", sanitizers.TOOLS)
def test_what_is_sanitized_exists_and_is_little(tool: str) -> None:
    cases = sanitizers.SANITIZED[tool]
    assert 15 <= len(set(cases)) == len(cases) <= 30
    done = collected(cases)
    assert done.returncode == 0 and f"\n{len(cases)} tests collected" in done.stdout, done.stdout + done.stderr


def test_what_is_sanitized_is_every_operator() -> None:
    check_complete("SHOWS of tests/benchmarks/test_gpu_kernels.py", SHOWS, operators())
    for operator, pattern in SHOWS.items():
        assert any(re.search(pattern, case) for case in sanitizers.SANITIZED["memcheck"]), operator
    # Those with shared memory.
    shared = ("normalized_step_", "apgd_step_", "from_pixels_", "target_grad", "row_losses", "mixed_cross_entropy")
    for operator in (*shared, "trades_loss"):
        assert any(re.search(SHOWS[operator], case) for case in sanitizers.SANITIZED["racecheck"]), operator


@pytest.mark.parametrize(
    ("output", "accused", "verdict"),
    [
        ("========= ERROR SUMMARY: 0 errors\n", False, "ERROR SUMMARY: 0 errors"),
        ("========= ERROR SUMMARY: 1 error\n", True, "ERROR SUMMARY: 1 error"),
        ("========= ERROR SUMMARY: 20 errors\n========= ERROR SUMMARY: 0 errors\n", True, "ERROR SUMMARY: 20 errors"),
        (
            "========= RACECHECK SUMMARY: 0 hazards displayed (0 errors, 0 warnings)\n",
            *(False, "RACECHECK SUMMARY: 0 hazards displayed (0 errors, 0 warnings)"),
        ),
        (
            "========= RACECHECK SUMMARY: 10 hazards displayed (10 errors, 0 warnings)\n",
            *(True, "RACECHECK SUMMARY: 10 hazards displayed (10 errors, 0 warnings)"),
        ),
        ("========= Invalid __global__ write of size 4 bytes\n", True, "Invalid __global__ write of size 4 bytes"),
        ("========= COMPUTE-SANITIZER\n", False, "no verdict"),
    ],
)
def test_verdicts(output: str, accused: bool, verdict: str) -> None:
    """Of a tool that was stopped at its limit, too."""
    findings = Findings()
    sanitizers._add(findings, Done("compute-sanitizer memcheck", [], 40.0, None, output + "= 3 passed in 1.0s =\n"))
    said = f"compute-sanitizer memcheck: stopped at its limit of time: 3 passed; {verdict} (40 s)"
    assert findings.checks == [said] and findings.outcome == ("failed" if accused else "passed")
    assert ("compute-sanitizer memcheck" in findings.last_lines) is accused


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo '========= COMPUTE-SANITIZER'; echo '========= Error: Device not supported'; exit 1", "Device not supp"),
        ("echo '========= ERROR SUMMARY: 0 errors'", "exit code 0: it says nothing"),  # and does not run the command
        ("", "exit code 0: it says nothing"),
    ],
)
def test_a_sanitizer_that_does_not_work_here(script: str, said: str, monkeypatch, tmp_path: Path) -> None:
    sanitizer_of(script, monkeypatch, tmp_path)
    findings = sanitized(60)
    [check] = findings.checks
    assert ": not run: compute-sanitizer does not work here" in check and said in check
    assert findings.outcome == "not run"


def test_without_a_sanitizer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    reason = "not run: compute-sanitizer is not on PATH (it is part of the CUDA toolkit)"
    assert sanitized(60).checks == [f"compute-sanitizer memcheck: {reason}"]


def test_a_sanitizer_that_works_runs_the_tests(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    echoes = "echo the sum is 8.0, 20 passed in 1.0s; echo $0 $* >> $0.log; echo '========= ERROR SUMMARY: 0 errors'"
    sanitizer_of(echoes, monkeypatch, tmp_path)
    for tool, cases in sanitizers.SANITIZED.items():
        findings = sanitized(120, tool)
        [check] = findings.checks
        assert check.startswith(f"compute-sanitizer {tool}: exit code 0") and "; ERROR SUMMARY: 0 errors" in check
        assert findings.outcome == "passed"
        probe, line = (tmp_path / "compute-sanitizer.log").read_text().splitlines()[-2:]
        assert "the sum is" in probe and f"--tool {tool} " in line and line.endswith(" ".join(cases))
    assert sanitized(0).checks == ["compute-sanitizer memcheck: not run: no time was left"]


def sanitized(seconds: float, tool: str = "memcheck") -> Findings:
    return getattr(sanitizers, tool)(Setting(Deadline(time.monotonic() + seconds)))


def sanitizer_of(script: str, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    program = folder / "compute-sanitizer"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)


# --- what the benchmark measures -------------------------------------------------------------------------------------


class FakeCuda:
    """A device that notes for how many cycles it was told to sleep, and takes 3 us a call."""

    clock_rate = 2_000_000  # kHz

    def __init__(self, monkeypatch: pytest.MonkeyPatch, issuing: float) -> None:
        self.calls, self.slept = 0, 0
        monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda: self)
        monkeypatch.setattr(torch.cuda, "_sleep", lambda cycles: setattr(self, "slept", cycles))
        monkeypatch.setattr(torch.cuda, "Event", lambda enable_timing: FakeEvent(self))
        monkeypatch.setattr(harness, "host_seconds", lambda function, calls: issuing)

    def call(self) -> None:
        self.calls += 1


class FakeEvent:
    def __init__(self, device: FakeCuda) -> None:
        self.device, self.at = device, 0

    def record(self) -> None:
        self.at = self.device.calls

    def synchronize(self) -> None:
        pass

    def elapsed_time(self, stop: FakeEvent) -> float:
        return 3e-3 * (stop.at - self.at)  # ms


@pytest.mark.parametrize(
    ("issuing", "timed", "slept"),
    [
        (10e-6, 100, 1.5e-3),  # all calls, behind one and a half times what issuing them takes
        (100e-6, 20, 3e-3),  # as many as the queue holds
        (0.1, 1, 0.15),  # never none
    ],
)
def test_calls_are_issued_before_they_are_timed(
    issuing: float, timed: int, slept: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = FakeCuda(monkeypatch, issuing)
    assert harness.device_seconds(device.call, 100) == pytest.approx(100 * 3e-6)
    assert device.calls == timed and device.slept == pytest.approx(slept * 2e9, rel=1e-3)


def test_what_does_not_compile_is_left_out_with_a_note() -> None:
    def fails() -> None:
        raise RuntimeError("no compiler\nand more")

    table = harness.Table("t", [])
    variants: dict[str, Callable[[], object]] = {"fused": int, "torch.compile": fails, "torch.compile, in place": int}
    assert list(kernels.without_failures(variants, table, "a step")) == ["fused", "torch.compile, in place"]
    assert table.notes == ["a step: without torch.compile, which failed (RuntimeError: no compiler)."]
