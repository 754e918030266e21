"""python -m benchmarks.gpu: its parts, what it refuses, its limits of time, and its reports."""

from __future__ import annotations

import importlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from benchmarks import machine
from benchmarks.gpu import __main__ as command
from benchmarks.gpu import extension, part, plan, processes
from benchmarks.gpu.part import Findings, Setting
from benchmarks.gpu.plan import Part
from benchmarks.gpu.processes import Deadline, Done
from benchmarks.gpu.summary import Entry, Summary
from fastadv.utils import environment

HOUR = Deadline(time.monotonic() + 3600)
REHEARSAL = Setting(HOUR, rehearsal=True)
EXTENSION = importlib.import_module("benchmarks.gpu.versions")

# --- parts -----------------------------------------------------------------------------------------------------------


def parts_of(monkeypatch: pytest.MonkeyPatch, **parts: Callable[[Setting], Findings]) -> list[str]:
    """Let the command have these parts; their names behind that of ``versions``, which finds the machine."""

    def found(setting: Setting) -> Findings:
        return Findings(["versions: exit code 0 (1 s)"], ["- hardware: a GPU"], ran=1)

    known = {name: Part(name.title(), 50, run) for name, run in {"versions": found, **parts}.items()}
    monkeypatch.setattr(command, "PARTS", known)
    return list(known)


def good(setting: Setting) -> Findings:
    return Findings(["good: 3 passed (1 s)"], ["## T\n\nrows"], ran=1)


def bad(setting: Setting) -> Findings:
    findings = Findings()
    output = "FAILED tests/gpu/test_x.py::test_y[a b] - AssertionError: no\n= 1 failed, 2 passed in 4.20s =\n"
    findings.add(Done("bad", [], 4.2, 1, output))
    return findings


def broken(setting: Setting) -> Findings:
    raise KeyError("a fault of the part's own")


def outcomes(folder: Path) -> dict[str, str]:
    return {name: entry.outcome for name, entry in Summary(folder).entries.items()}


def test_a_part_that_fails_is_reported_and_the_others_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = parts_of(monkeypatch, bad=bad, broken=broken, good=good)
    assert not command.run_parts(names, 400, REHEARSAL, tmp_path)
    assert outcomes(tmp_path) == {"versions": "passed", "bad": "failed", "broken": "failed", "good": "passed"}
    entries = Summary(tmp_path).entries
    assert entries["bad"].failed_tests == ["tests/gpu/test_x.py::test_y[a b]"]
    assert entries["bad"].last_lines["bad"][-1] == "= 1 failed, 2 passed in 4.20s ="
    assert "AssertionError: no" in (tmp_path / "bad.md").read_text()
    assert "a fault of the part's own" in (tmp_path / "broken.md").read_text()
    assert (tmp_path / "good.md").read_text() == (
        "# Good\n\n- hardware: a GPU\n\n## Checks\n\n- good: 3 passed (1 s)\n\n## T\n\nrows\n"
    )


def test_all_that_is_right_is_success(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = parts_of(monkeypatch, good=good, absent=lambda setting: Findings(["absent: not run: no such program"]))
    assert command.run_parts(names, 400, REHEARSAL, tmp_path)
    assert outcomes(tmp_path) == {"versions": "passed", "good": "passed", "absent": "not run"}


def test_the_summary_is_written_before_and_after_each_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[dict[str, str]] = []

    def look(setting: Setting) -> Findings:
        seen.append(outcomes(tmp_path))
        return good(setting)

    names = parts_of(monkeypatch, first=look, second=look)
    command.run_parts(names, 400, REHEARSAL, tmp_path)
    assert seen == [
        {"versions": "passed", "first": "running"},
        {"versions": "passed", "first": "passed", "second": "running"},
    ]


def test_a_later_call_has_what_was_wrong_and_keeps_the_other_entries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = parts_of(monkeypatch, bad=bad, good=good)
    command.run_parts(names, 400, REHEARSAL, tmp_path)
    given: list[Setting] = []

    def again(setting: Setting) -> Findings:
        given.append(setting)
        return good(setting)

    names = parts_of(monkeypatch, again=again)
    command.run_parts(names, 400, REHEARSAL, tmp_path)
    assert [entry.part for entry in given[0].failed] == ["bad"]
    assert outcomes(tmp_path) == {"bad": "failed", "good": "passed", "versions": "passed", "again": "passed"}


def test_each_part_has_a_limit_of_its_own_within_that_of_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left: list[float] = []

    def look(setting: Setting) -> Findings:
        left.append(setting.limit())
        return good(setting)

    names = parts_of(monkeypatch, first=look, second=look)
    command.run_parts(names, 130, Setting(HOUR), tmp_path)
    assert left == pytest.approx([50, 50], abs=2)
    assert not command.run_parts(names, 50, Setting(HOUR), tmp_path)  # as many as versions may take
    assert len(left) == 2
    assert outcomes(tmp_path) == {"versions": "passed", "first": "stopped", "second": "stopped"}
    assert "- first: not run: no time was left" in (tmp_path / "first.md").read_text()


@pytest.mark.parametrize("group", plan.GROUPS.values(), ids=plan.GROUPS)
def test_the_parts_of_a_group_fit_into_its_time(group: plan.Group) -> None:
    """But for what failed before, without which there is time for the others."""
    assert sum(plan.PARTS[name].seconds for name in group.parts if name != "failed") <= group.seconds
    assert group.seconds <= 480 and len(group.parts) <= 7


TERMINATED = """
import sys
from pathlib import Path
from benchmarks.gpu import __main__ as command
from benchmarks.gpu.part import Findings
from benchmarks.gpu.plan import Part
from benchmarks.gpu.processes import run

def versions(setting):
    return Findings(ran=1)

def sleeps(setting):
    findings = Findings()
    findings.add(run("sleeps", ["sh", "-c", "echo $$ > $0; exec sleep 300", sys.argv[1]], 300))
    return findings

command.PARTS = {"versions": Part("V", 10, versions), "tests": Part("T", 300, sleeps)}
command.end_when_terminated()
sys.exit(command.main(["--rehearse", "--parts", "tests", "--out", sys.argv[2]]))
"""


def test_a_run_that_is_terminated_leaves_what_it_had_and_no_process(tmp_path: Path) -> None:
    noted = tmp_path / "pid"
    running = subprocess.Popen([sys.executable, "-c", TERMINATED, noted, tmp_path], cwd=processes.ROOT)
    for _ in range(1200):
        if noted.exists() and noted.read_text():
            break
        time.sleep(0.1)
    running.terminate()
    assert running.wait(60) == 128 + signal.SIGTERM
    assert outcomes(tmp_path) == {"versions": "passed", "tests": "running"}
    assert not Path("/proc", noted.read_text().strip()).exists()


# --- what failed before ----------------------------------------------------------------------------------------------


def entry_of(part: str, *failed_tests: str) -> Entry:
    return Entry(part, "failed", "2026-01-01", 60, failed_tests=failed_tests)


def test_tests_that_failed_are_run_by_name_and_other_parts_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[list[str]] = []

    def run(name: str, words: list[str], limit: float, **environment: str) -> Done:
        ran.append(words)
        return Done(name, words, 1.0, 0, "= 2 passed in 1.0s =\n")

    monkeypatch.setattr(importlib.import_module("benchmarks.gpu.tests"), "run", run)
    monkeypatch.setitem(plan.PARTS, "ncu", Part("N", 40, good))
    failed = (
        entry_of("smoke", "tests/gpu/a.py::x"),
        entry_of("tests", "tests/gpu/a.py::x", "b.py::y"),
        entry_of("ncu"),
    )
    findings = plan.failed(Setting(HOUR, rehearsal=True, failed=failed))
    [words] = ran
    assert words[-2:] == ["tests/gpu/a.py::x", "b.py::y"]
    assert findings.checks == ["tests that failed: 2 passed (1 s)", "good: 3 passed (1 s)"] and findings.right
    assert findings.outcome == "passed"


def test_without_failures_nothing_is_run_again() -> None:
    findings = plan.failed(REHEARSAL)
    assert (findings.checks, findings.outcome) == (["failed: not run: nothing failed before"], "not run")


# --- versions and the extension --------------------------------------------------------------------------------------


def answers(monkeypatch: pytest.MonkeyPatch, *codes: int, build: int = 0) -> list[str]:
    """Let the questions about the versions end like this, one after the other; the names of what is run."""
    ran, left = [], list(codes)

    def asked(name: str, words: list[str], limit: float) -> Done:
        ran.append(name)
        return Done(name, words, 1.0, left.pop(0), "- hardware: a GPU\na warning\n- CUDA: 13\n")

    def built() -> Done:
        ran.append("build")
        return Done("build", [], 99.0, build, "")

    monkeypatch.setattr(EXTENSION, "run", asked)
    monkeypatch.setattr(extension, "build", built)
    return ran


def test_an_extension_that_is_there_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    ran = answers(monkeypatch, 0)
    findings = EXTENSION.versions(REHEARSAL)
    assert ran == ["versions"] and findings.right and findings.tables == ["- hardware: a GPU\n- CUDA: 13"]


@pytest.mark.parametrize(
    ("codes", "build", "asked_to", "right"),
    [
        ((EXTENSION.NO_EXTENSION, 0), 0, False, True),
        ((EXTENSION.NO_EXTENSION,), 1, False, False),
        ((EXTENSION.NO_EXTENSION, EXTENSION.NO_EXTENSION), 0, False, False),
        ((0, 0), 0, True, True),
    ],
)
def test_an_extension_is_built_where_there_is_none(
    codes: tuple[int, ...], build: int, asked_to: bool, right: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = answers(monkeypatch, *codes, build=build)
    findings = EXTENSION.versions(Setting(HOUR, build=asked_to))
    assert ran == ["versions", "build", "versions"][: 1 + len(codes)] and findings.right == right


def test_without_a_gpu_nothing_is_built_and_nothing_else_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = answers(monkeypatch, EXTENSION.NO_GPU)
    monkeypatch.setattr(command, "PARTS", {"versions": plan.PARTS["versions"], "good": Part("Good", 9, good)})
    assert not command.run_parts(["versions", "good"], 60, Setting(HOUR), tmp_path)
    assert ran == ["versions"] and outcomes(tmp_path) == {"versions": "failed"}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert EXTENSION.main([]) == EXTENSION.NO_GPU
    assert "no GPU that torch can use; --rehearse" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("compiled", "capability", "said"),
    [
        ("80-real 90-real 100", (9, 0), None),
        ("80-real 90-real 100", (7, 5), "none for A GPU (compute capability 7.5)"),
        ("", (9, 0), "has kernels for no GPU"),
    ],
)
def test_an_extension_for_other_gpus(
    compiled: str,
    capability: tuple[int, int],
    said: str | None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(environment._C, "build_info", lambda: {"cuda_archs": compiled})
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "A GPU")
    monkeypatch.setattr(machine, "describe", lambda packages: "- hardware: A GPU")
    code = EXTENSION.main([])
    assert code == (0 if said is None else EXTENSION.NO_EXTENSION)
    assert (said or "") in capsys.readouterr().err


# --- options ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--wheels", "none"], "--wheels none: there is no such folder"),
        (["--wheels", "csrc"], "--wheels csrc: there is no wheel in it, that is, no file *.whl"),
        (["--fashion-mnist", "none"], "--fashion-mnist none: there is no such folder"),
        (["--imagenette", "none.tar"], "--imagenette none.tar: this is neither a folder nor a tar archive"),
        (["--imagenette", "setup.py"], "--imagenette setup.py: this is neither a folder nor a tar archive"),
        (["--parts", "imagenette", "--build"], "the part imagenette needs its images: --imagenette PATH"),
    ],
)
def test_what_is_not_there_is_refused_first(
    argv: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(processes.ROOT)
    assert command.main(argv) == 2
    assert capsys.readouterr().err == f"{said}\n"


def test_an_unknown_part_is_refused_with_those_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.main(["--parts", "tests,all"])
    assert "all: a part is one of first, second, versions, smoke, trainer, tests" in capsys.readouterr().err


def test_parts_by_name_follow_the_versions() -> None:
    assert command._chosen(["first"]) == (list(plan.GROUPS["first"].parts), 480)
    assert command._chosen(["attacks", "curves"]) == (["versions", "attacks", "curves"], 960)


def test_every_part_is_in_the_help() -> None:
    assert command.__doc__ is not None
    described = re.findall(r"^(\w+) {2,}\S", command.__doc__, re.MULTILINE)
    assert described == [*plan.GROUPS, *plan.PARTS]
    for name, group in plan.GROUPS.items():
        assert re.search(rf"^{name} +{group.seconds} s.*: {', '.join(group.parts)}$", command.__doc__, re.MULTILINE)


def test_make_hands_on_parts_and_options() -> None:
    words = ["make", "--dry-run", "gpu", "PARTS=attacks,curves", "OPTIONS=--imagenette DIR"]
    done = subprocess.run(words, cwd=processes.ROOT, capture_output=True, text=True, check=True)
    assert "-m benchmarks.gpu --parts attacks,curves --imagenette DIR" in done.stdout


@pytest.mark.parametrize(("packages", "installs"), [("torch", False), ("", True)])
def test_make_installs_nothing_where_python_has_torch(packages: str, installs: bool, tmp_path: Path) -> None:
    """And where there is no .venv of its own."""
    (tmp_path / "csrc").mkdir()
    for name in ("Makefile", "constraints.txt", "pyproject.toml", "setup.py", "CMakeLists.txt"):
        shutil.copy(processes.ROOT / name, tmp_path)
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\necho {packages}\n")  # what is asked for is printed where it is there
    python.chmod(0o755)
    words = ["make", "--dry-run", "gpu", f"PYTHON={python}"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert (f"{python} -m benchmarks.gpu --parts first" in done.stdout) is not installs
    assert ("pip" in done.stdout) is installs


# --- packages that are carried along ---------------------------------------------------------------------------------


def test_wheels_are_importable_here_and_in_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "before"))
    monkeypatch.setattr(sys, "path", [*sys.path])
    wheel_of("carried_along", tmp_path)
    assert command.install(tmp_path, str(tmp_path / "packages"))
    assert os.environ["PYTHONPATH"] == f"{tmp_path / 'packages'}{os.pathsep}{tmp_path / 'before'}"
    assert sys.path[0] == str(tmp_path / "packages")
    asked = processes.run("ask", [sys.executable, "-c", "import carried_along; print(carried_along.VALUE)"], 60)
    assert asked.output == "7\n"


def test_wheels_that_cannot_be_installed_end_the_command(tmp_path: Path) -> None:
    (tmp_path / "broken-1.0-py3-none-any.whl").write_bytes(b"")
    assert command.main(["--rehearse", "--wheels", str(tmp_path), "--out", str(tmp_path)]) == 1


def wheel_of(module: str, folder: Path) -> None:
    """A wheel of one module, which asks for a package that is not there."""
    with zipfile.ZipFile(folder / f"{module}-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{module}.py", "VALUE = 7\n")
        meta = f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\nRequires-Dist: of-years-ago~=0.1\n"
        wheel.writestr(f"{module}-1.0.dist-info/METADATA", meta)
        wheel.writestr(f"{module}-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr(f"{module}-1.0.dist-info/RECORD", "")


# --- commands and their time -----------------------------------------------------------------------------------------


def test_a_command_at_its_limit_keeps_what_it_has() -> None:
    late = "import time\ntry: time.sleep(60)\nexcept KeyboardInterrupt: print('= 3 passed in 1.0s =')"
    done = processes.run("late", [sys.executable, "-uc", late], 3)
    assert done.code is None and done.outcome == "stopped at its limit of time: 3 passed" and done.seconds < 6


def test_a_command_at_its_limit_leaves_no_process() -> None:
    """Not a launcher's child either, which does not hear an interrupt."""
    done = processes.run("launcher", ["sh", "-c", "(trap '' INT; exec sleep 300) & echo $!; wait"], 2)
    stat = Path("/proc", done.output.split()[0], "stat")
    for _ in range(50):
        if not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z":
            return
        time.sleep(0.1)
    pytest.fail(f"process {stat.parent.name} still runs")


def test_a_command_gets_its_share_of_what_is_left() -> None:
    now = time.monotonic()
    assert Deadline(now + 500).share(120) == 120
    assert Deadline(now + 30).share(120) == pytest.approx(30, abs=1)
    assert Setting(Deadline(now + 3000), rehearsal=True).limit(120) == 900


@pytest.mark.parametrize(
    ("code", "output", "outcome"),
    [
        (0, "===== 12 passed, 3 skipped in 4.20s =====\n", "12 passed, 3 skipped"),
        (1, "1 failed, 11 passed in 4.20s (0:00:04)\n", "1 failed, 11 passed"),
        (0, "built\n", "exit code 0"),
        (2, "a warning\n  fastadv train: rich is needed\n\n", "exit code 2: fastadv train: rich is needed"),
        (3, "", "exit code 3"),
        (None, "much\n", "stopped at its limit of time"),
    ],
)
def test_outcomes(code: int | None, output: str, outcome: str) -> None:
    assert Done("x", [], 1.0, code, output).outcome == outcome


@pytest.mark.parametrize(
    ("code", "may_be_stopped", "outcome"),
    [
        *((0, False, "passed"), (0, True, "passed"), (None, True, "passed")),
        *((None, False, "stopped"), (1, False, "failed"), (1, True, "failed")),
    ],
)
def test_what_is_wrong(code: int | None, may_be_stopped: bool, outcome: str) -> None:
    findings = Findings()
    findings.add(Done("tests", [], 61.4, code, "= 12 passed in 4.20s =\n"), may_be_stopped=may_be_stopped)
    assert findings.outcome == outcome and findings.right == (outcome == "passed")
    assert findings.checks[0].endswith("12 passed (61 s)")
    assert bool(findings.last_lines) != findings.right


def test_which_tests_failed_is_not_known_of_a_run_that_was_stopped() -> None:
    output = "FAILED tests/a.py::b[1-2] - x\nERROR tests/a.py::c\nFAILED tests/a.py::b[1-2] - x\n"
    assert Done("tests", [], 1.0, 1, output).failed_tests == ["tests/a.py::b[1-2]", "tests/a.py::c"]
    assert Done("tests", [], 1.0, None, output).failed_tests == []


# --- a benchmark's tables --------------------------------------------------------------------------------------------


HEAD = "# Benchmarks\n\n- date: today\n- command: `pytest`\n- not measured: T: ResNet-50"


@pytest.mark.parametrize("report", [None, f"{HEAD}\n\n## T\n\nrows\n\n## U\n\nrows\n"])
def test_a_benchmarks_tables_are_kept_without_their_head(report: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(name: str, words: list[str], limit: float, **environment: str) -> Done:
        assert "benchmarks/test_x.py" in words and limit == 900 and environment == {"FASTADV_TEST_DEVICE": "cpu"}
        if report is not None:
            Path(words[words.index("--report") + 1]).write_text(report)
        return Done(name, words, 5.0, None, "")

    monkeypatch.setattr(part, "run", run)
    findings = Findings()
    part.benchmark(findings, REHEARSAL, "x", "benchmarks/test_x.py", 60, may_be_stopped=True)
    stopped = "x: stopped at its limit of time (5 s)"
    assert findings.checks == [stopped, "x: it wrote no tables" if report is None else "not measured: T: ResNet-50"]
    assert findings.right == (report is not None)
    assert findings.tables == ([] if report is None else ["## T\n\nrows\n\n## U\n\nrows"])


def test_a_benchmark_that_has_no_time_left_says_so() -> None:
    findings = Findings()
    part.benchmark(findings, Setting(Deadline(time.monotonic())), "x", "benchmarks/test_x.py", 60)
    assert findings == Findings(["x: not run: no time was left"])
