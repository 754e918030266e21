"""python -m benchmarks.gpu: its parts, what it refuses, its limits of time, and its reports."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
import torch

from benchmarks import machine
from benchmarks.gpu import __main__ as command
from benchmarks.gpu import extension, part, processes
from benchmarks.gpu.part import Findings, Setting
from benchmarks.gpu.processes import Deadline, Done
from fastadv.utils import environment

HOUR = Deadline(time.monotonic() + 3600)

# --- parts and options -----------------------------------------------------------------------------------------------


def test_parts_run_in_their_order_each_with_a_time_and_a_file_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings: list[Setting] = []

    def found(right: bool) -> command.Part:
        def run(setting: Setting) -> Findings:
            settings.append(setting)
            return Findings(["tests: 3 passed (1 s)"], ["## T\n\nrows"], right=right)

        return command.Part("Title", f"-{right}", run)

    monkeypatch.setattr(command, "PARTS", {"good": found(True), "bad": found(False)})
    argv = ["--rehearse", "--out", str(tmp_path)]
    assert command.main([*argv, "--parts", "good"]) == 0
    assert command.main([*argv, "--parts", "bad,good,bad"]) == 1  # whichever comes last
    assert [path.name for path in sorted(tmp_path.iterdir())] == [f"{machine.slug()}-{end}.md" for end in (False, True)]
    assert all(setting.rehearsal and setting.device == "cpu" for setting in settings)
    assert len({setting.deadline.at for setting in settings}) == len(settings) == 3


def test_a_report_has_the_machine_the_checks_and_the_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "describe", lambda packages: "- date: today")
    findings = Findings(["tests: 3 passed (1 s)", "generation: not run: no time was left"], ["## A\n\na", "## B\n\nb"])
    path = command.write(command.Part("Title", "-part", Findings), findings, tmp_path)  # type: ignore[arg-type]
    checks = "- tests: 3 passed (1 s)\n- generation: not run: no time was left"
    assert path.read_text() == f"# Title\n\n- date: today\n\n## Checks\n\n{checks}\n\n## A\n\na\n\n## B\n\nb\n"
    findings.figure = "<svg/>"
    assert command.write(command.Part("Title", "-part", Findings), findings, tmp_path) == path  # type: ignore[arg-type]
    assert path.read_text().endswith(f"\n\n![Title]({path.stem}.svg)\n")
    assert path.with_suffix(".svg").read_text() == "<svg/>"


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--rehearse", "--out", "none"], "--out none: there is no such folder"),
        (["--rehearse", "--wheels", "none"], "--wheels none: there is no such folder"),
        (["--rehearse", "--wheels", "csrc"], "--wheels csrc: there is no wheel in it, that is, no file *.whl"),
        (["--rehearse", "--fashion-mnist", "none"], "--fashion-mnist none: there is no such folder"),
        (
            ["--rehearse", "--imagenette", "none.tar"],
            "--imagenette none.tar: this is neither a folder nor a tar archive",
        ),
        (
            ["--rehearse", "--imagenette", "setup.py"],
            "--imagenette setup.py: this is neither a folder nor a tar archive",
        ),
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
        command.main(["--parts", "kernels,all"])
    assert "all: a part is one of kernels, attacks, imagenette, curves, methods" in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main([]) == 2
    assert "no GPU that torch can use; --rehearse" in capsys.readouterr().err


def test_imagenette_needs_its_images_before_anything_is_built(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert command.main(["--parts", "imagenette", "--build"]) == 2
    assert capsys.readouterr().err == "the part imagenette needs its images: --imagenette PATH\n"


def test_every_part_is_in_the_help() -> None:
    assert command.__doc__ is not None
    described = re.findall(r"^(\w+) {2,}\S", command.__doc__, re.MULTILINE)
    assert described == list(command.PARTS)


def test_make_hands_on_parts_and_options() -> None:
    words = ["make", "--dry-run", "gpu", "PARTS=attacks,curves", "OPTIONS=--imagenette DIR"]
    done = subprocess.run(words, cwd=processes.ROOT, capture_output=True, text=True, check=True)
    assert "-m benchmarks.gpu --parts attacks,curves --imagenette DIR" in done.stdout


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
    monkeypatch.setattr(environment._C, "build_info", lambda: {"cuda_archs": compiled})
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "A GPU")
    why = extension.without_kernels()
    assert why is None if said is None else re.search(said, why or "")


# --- packages that are carried along ---------------------------------------------------------------------------------


def test_wheels_are_importable_here_and_in_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "before"))
    monkeypatch.setattr(sys, "path", [*sys.path])
    wheel_of("carried_along", tmp_path)
    assert command.install(tmp_path, str(tmp_path / "packages"), HOUR)
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
    done = processes.run("late", [sys.executable, "-uc", late], 2)
    assert done.code is None and done.outcome == "stopped at its limit of time: 3 passed" and done.seconds < 20


def test_a_command_at_its_limit_leaves_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not a launcher's child either, which does not hear an interrupt."""
    monkeypatch.setattr(processes, "GRACE", 1)
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
    assert Deadline(now + processes.GRACE + 30).share(120) == pytest.approx(30, abs=1)
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
    ("code", "must_end", "right"),
    [(0, True, True), (0, False, True), (None, False, True), (None, True, False), (1, False, False)],
)
def test_what_is_wrong(code: int | None, must_end: bool, right: bool) -> None:
    findings = Findings()
    findings.add(Done("tests", [], 61.4, code, "= 12 passed in 4.20s =\n"), must_end=must_end)
    assert findings.right == right and findings.checks[0].endswith("12 passed (61 s)")


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
    part.benchmark(findings, Setting(HOUR, rehearsal=True), "x", "benchmarks/test_x.py", 60)
    stopped = "x: stopped at its limit of time (5 s)"
    assert findings.checks == [stopped, "x: it wrote no tables" if report is None else "not measured: T: ResNet-50"]
    assert findings.right == (report is not None)
    assert findings.tables == ([] if report is None else ["## T\n\nrows\n\n## U\n\nrows"])


def test_a_benchmark_that_has_no_time_left_says_so() -> None:
    findings = Findings()
    part.benchmark(findings, Setting(Deadline(time.monotonic())), "x", "benchmarks/test_x.py", 60)
    assert findings == Findings(["x: not run: no time was left"])
