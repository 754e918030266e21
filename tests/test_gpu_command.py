"""python -m benchmarks.gpu: rehearsed where there is no GPU, and what it says of parts that fail or take too long."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from benchmarks import gpu, harness
from benchmarks import test_kernels as kernels
from fastadv import info


@pytest.mark.timeout(1800)
def test_a_rehearsal_runs_every_part_and_reports(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    report = tmp_path / "report.md"
    code = gpu.main(["--rehearse", "--out", str(report)])
    assert code == 0, capfd.readouterr().out[-4000:]
    text = report.read_text()
    assert "- tests: " in text and "- benchmark: " in text and "failed" not in text
    for title in ("Steps on a GPU", "Rows of logits on a GPU", "Targets"):
        rows = text.split(f"## {title}\n\n")[1].split("\n\n")[0].splitlines()
        assert len(rows) > 3, title


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu.main([]) == 2
    assert "no GPU that torch can use; --rehearse" in capsys.readouterr().err


def test_a_part_at_its_limit_keeps_what_it_has() -> None:
    late = "import time\ntry: time.sleep(60)\nexcept KeyboardInterrupt: print('= 3 passed in 1.0s =')"
    part = gpu.run("late", [sys.executable, "-uc", late], 2)
    assert part.code is None and part.outcome == "stopped at its limit of time: 3 passed" and part.seconds < 20


def test_a_part_at_its_limit_leaves_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not a launcher's child either, which does not hear an interrupt."""
    monkeypatch.setattr(gpu, "GRACE", 1)
    part = gpu.run("launcher", ["sh", "-c", "(trap '' INT; exec sleep 300) & echo $!; wait"], 2)
    stat = Path("/proc", part.output.split()[0], "stat")
    for _ in range(50):
        if not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z":
            return
        time.sleep(0.1)
    pytest.fail(f"process {stat.parent.name} still runs")


def test_a_part_gets_its_share_of_what_is_left() -> None:
    now = time.monotonic()
    assert gpu.Deadline(now + 500).share(120) == 120
    assert gpu.Deadline(now + gpu.GRACE + 30).share(120) == pytest.approx(30, abs=1)


@pytest.mark.parametrize(
    ("compiled", "capability", "said"),
    [
        ("80-real 90-real 100", (9, 0), None),
        ("80-real 90-real 100", (7, 5), r"none for A GPU \(compute capability 7\.5\).*benchmarks\.gpu --build"),
        ("", (9, 0), "has kernels for no GPU"),
    ],
)
def test_an_extension_for_other_gpus(
    compiled: str, capability: tuple[int, int], said: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(info.ops._C, "build_info", lambda: {"cuda_archs": compiled})
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "A GPU")
    why = gpu.without_kernels()
    assert why is None if said is None else re.search(said, why)


def test_a_report_in_no_folder_is_refused_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu.main(["--rehearse", "--out", str(tmp_path / "none" / "report.md")]) == 2
    assert f"there is no folder {tmp_path / 'none'}" in capsys.readouterr().err


def test_every_file_with_tests_of_a_gpu_is_run() -> None:
    tests = Path(__file__).parent
    marked = {path for path in tests.rglob("test_*.py") if re.search(r"\bpytest\.mark\.gpu\b", path.read_text())}
    named = [gpu.ROOT / name for name in gpu.TESTS]
    assert {path for path in marked if not any(path.is_relative_to(name) for name in named)} == set()
    assert all(any(path.is_relative_to(name) for path in marked) for name in named)


# --- compute-sanitizer -----------------------------------------------------------------------------------------------

SHOWS = {
    "sign_step_": r"\[sign-",
    "normalized_step_": r"\[(l2|linf)-",
    "noise_step_": r"\[noise_",
    "from_pixels_": "test_from_pixels",
    "truncated_normal_": "test_drawn_eps",
    "sample_eps": "test_drawn_eps",
    "target_grad": "test_target_grad",
    "mixed_cross_entropy": "test_mixed_cross_entropy",
}


@pytest.mark.parametrize("tool", gpu.TOOLS)
def test_what_is_sanitized_exists_and_is_little(tool: str) -> None:
    cases = gpu.SANITIZED[tool]
    assert 15 <= len(set(cases)) == len(cases) <= 25
    command = [*gpu.PYTEST, "--collect-only", *cases]
    done = subprocess.run(command, capture_output=True, text=True, cwd=gpu.ROOT, timeout=120)
    assert done.returncode == 0 and f"\n{len(cases)} tests collected" in done.stdout, done.stdout + done.stderr


def test_what_is_sanitized_is_every_operator() -> None:
    assert set(SHOWS) == set(info.OPERATORS)
    for operator, pattern in SHOWS.items():
        assert any(re.search(pattern, case) for case in gpu.SANITIZED["memcheck"]), operator
    # Those with shared memory.
    for operator in ("normalized_step_", "from_pixels_", "target_grad", "mixed_cross_entropy"):
        assert any(re.search(SHOWS[operator], case) for case in gpu.SANITIZED["racecheck"]), operator


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
    part = gpu.Part("memcheck", [], 40.0, None, output + "= 3 passed in 1.0s =\n")
    assert bool(part.accused) == accused
    assert f"memcheck: stopped at its limit of time: 3 passed; {verdict} (40 s)" in gpu.report(
        [], {"memcheck": part}, ""
    )


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo '========= COMPUTE-SANITIZER'; echo '========= Error: Device not supported'; exit 1", "Device not supp"),
        ("echo '========= ERROR SUMMARY: 0 errors'", "it says nothing"),  # and does not run the command
        ("", "it says nothing"),
    ],
)
def test_a_sanitizer_that_does_not_work_here(script: str, said: str, monkeypatch, tmp_path: Path) -> None:
    sanitizer_of(script, monkeypatch, tmp_path)
    for part in gpu.sanitize(gpu.Deadline(time.monotonic() + 60)).values():
        assert isinstance(part, str) and part.startswith("not run: compute-sanitizer does not work here")
        assert said in part


def test_a_sanitizer_that_works_runs_the_tests(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    sanitizer_of(
        "echo the sum is 8.0, 20 passed in 1.0s; echo '========= ERROR SUMMARY: 0 errors'", monkeypatch, tmp_path
    )
    done = gpu.sanitize(gpu.Deadline(time.monotonic() + 120))
    for tool, part in done.items():
        assert isinstance(part, gpu.Part) and part.code == 0
        assert part.command[-len(gpu.SANITIZED[tool]) :] == gpu.SANITIZED[tool]
    assert set(gpu.sanitize(gpu.Deadline(time.monotonic())).values()) == {"not run: no time was left"}


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


def test_kernels_alone_are_counted(tmp_path: Path) -> None:
    events = [
        {"name": name, "cat": name} for name in ("kernel", "gpu_memcpy", "gpu_memset", "overhead", "cuda_runtime")
    ]
    trace = tmp_path / "trace.json"
    trace.write_text(json.dumps({"traceEvents": [*events, {"name": "no category"}]}))
    assert kernels.kernels_of(trace) == ["kernel"]


@pytest.mark.parametrize(
    ("code", "output", "outcome"),
    [
        (0, "===== 12 passed, 3 skipped in 4.20s =====\n", "12 passed, 3 skipped"),
        (1, "1 failed, 11 passed in 4.20s (0:00:04)\n", "1 failed, 11 passed"),
        (0, "built\n", "exit code 0"),
    ],
)
def test_outcomes(code: int, output: str, outcome: str) -> None:
    assert gpu.Part("x", [], 1.0, code, output).outcome == outcome


def test_the_report_says_what_did_not_run() -> None:
    parts = [gpu.Part("tests", [], 61.4, 0, "= 12 passed in 4.20s =\n")]
    found = gpu.Part("memcheck", [], 30.0, 9, "1 failed in 3.0s\n========= ERROR SUMMARY: 2 errors\n")
    text = gpu.report(parts, {"memcheck": found, "racecheck": "not run: no tool"}, "# B\n\n- date\n\n## T\n\nrows\n")
    assert text == (
        "# B\n\n- date\n\n## Checks\n\n- tests: 12 passed (61 s)\n"
        "- compute-sanitizer memcheck: 1 failed; ERROR SUMMARY: 2 errors (30 s)\n"
        "- compute-sanitizer racecheck: not run: no tool\n\n## T\n\nrows\n"
    )
