"""python -m benchmarks.gpu: rehearsed where there is no GPU, and what it says of parts that fail or take too long."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from benchmarks import gpu


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
