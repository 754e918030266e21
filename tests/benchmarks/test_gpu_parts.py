"""The parts attacks, imagenette, curves and methods of python -m benchmarks.gpu, rehearsed on the CPU."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import tarfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import cost_curves, launches
from benchmarks import test_options as options
from benchmarks.first_calls import first_calls
from benchmarks.gpu import __main__ as command
from benchmarks.gpu import attacks, costs, imagenette
from benchmarks.gpu.part import Findings, Setting
from benchmarks.gpu.plan import PARTS
from benchmarks.gpu.processes import Deadline, Done
from benchmarks.harness import Table
from benchmarks.training_methods.__main__ import parser as methods_parser
from fastadv import cli

pytestmark = pytest.mark.slow

REHEARSAL = Setting(Deadline(time.monotonic() + 3600), rehearsal=True)


def here(name: str, words: list[str], limit: float, **environment: str) -> Done:
    """What a command does, in this process: importing everything anew is most of the time of a short one."""
    _, option, module, *arguments = words
    assert option == "-m"
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = (cli if module == "fastadv" else importlib.import_module(module)).main(arguments)
    return Done(name, words, 1.0, code or 0, said.getvalue())


def rows_of(report: str, title: str) -> list[list[str]]:
    """The body of the table below a title."""
    lines = report.split(f"{title}\n\n")[1].split("\n\n")[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


# --- attacks ---------------------------------------------------------------------------------------------------------


@pytest.mark.timeout(900)
def test_attacks_are_rehearsed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(attacks, "PACKAGES", ())  # which takes seconds to import, here and in each command
    monkeypatch.setenv("PYTEST_ADDOPTS", "-k 'not fgsm and not iter_basic and not iter_ll'")  # which go the same way
    code = command.main(["--rehearse", "--parts", "attacks", "--out", str(tmp_path)])
    assert code == 0, capfd.readouterr().out[-4000:]
    text = (tmp_path / "attacks.md").read_text()
    for name in ("training", "generation", "options"):
        assert f"\n- {name}: " in text
    assert {row[0] for row in rows_of(text, "Generation of adversarial examples")} == {"small_cnn"}
    assert {row[2] for row in rows_of(text, "An iteration of training")} == {"none", "step_ll"}
    variants = rows_of(text, options.OPTIONS.title)
    assert {row[3] for row in variants} == {"float32", "bfloat16"}
    assert {row[4] for row in variants} >= {*options.ATTACK_OPTIONS, "fastadv, channels_last, fast"}
    # What an option did not do here is said below the table.
    assert "step_ll, float32, fastadv, capture: step_ll runs without capture=True: CUDA graphs need a GPU" in text


def test_attacks_that_are_slow_leave_the_others_their_time(monkeypatch: pytest.MonkeyPatch) -> None:
    limits: list[float] = []

    def benchmark(findings: Findings, setting: Setting, name: str, file: str, seconds: float, **options: bool) -> None:
        assert (command.ROOT / file).exists()
        limits.append(seconds)

    monkeypatch.setattr(attacks, "benchmark", benchmark)
    monkeypatch.setattr(attacks, "PACKAGES", ("torch", "not_there", "nor_this"))
    findings = attacks.attacks(REHEARSAL)
    assert findings.checks == [
        "packages that are not compared with: No module named 'not_there'; No module named 'nor_this'"
    ]
    whole = PARTS["attacks"].seconds
    assert sum(limits[:-1]) < whole - 150 and limits[-1] == whole


def test_what_runs_without_its_option_is_noted_once() -> None:
    table = Table("t", [])
    without = ["step_ll runs without capture=True: why", "compile: it failed and training continues without it: why"]

    def call() -> object:
        for said in (*without, "something else"):
            warnings.warn(said, stacklevel=2)
        return torch.ones(1)

    assert float(first_calls(table, "net, fast", call)) >= 0
    assert table.notes == [f"net, fast: {said}." for said in without]


def test_launches_are_counted(tmp_path: Path) -> None:
    """A graph is one launch; of the rest no copy, no annotation, and no call of the runtime that launches nothing."""
    calls = {
        "cuda_runtime": ["cudaLaunchKernel", "cudaLaunchKernelExC", "cudaGraphLaunch", "cudaMemcpyAsync"],
        "cuda_driver": ["cuLaunchKernel", "cuLaunchKernelEx", "cuModuleGetFunction"],
        "kernel": ["one", "two", "three"],
        "gpu_memcpy": ["cudaLaunchKernel"],
    }
    waits = [("cuda_runtime", name) for name in ("cudaStreamSynchronize", "cudaEventSynchronize")]
    whole = [("cuda_runtime", "cudaDeviceSynchronize")]  # the counting's own
    pairs = [(kind, name) for kind, names in calls.items() for name in names] + waits + whole
    trace = tmp_path / "trace.json"
    trace.write_text(json.dumps({"traceEvents": [*({"cat": c, "name": n} for c, n in pairs), {"name": "no category"}]}))
    assert launches.launches_in(trace) == launches.Launches(["one", "two", "three"], host=5, waits=2)


# --- imagenette ------------------------------------------------------------------------------------------------------


@pytest.mark.timeout(900)
def test_imagenette_is_rehearsed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imagenette, "run", here)
    code = command.main(["--rehearse", "--parts", "imagenette", "--out", str(tmp_path)])
    text = (tmp_path / "imagenette.md").read_text()
    assert code == 0, text
    for check in ("trial of 2 epochs", "adversarial", "standard", "evaluation"):
        assert f"\n- {check}: exit code 0 (1 s)" in text
    assert "\n- loader, on " in text and "1 for each network" in text
    trainings = rows_of(text, "## Training")
    assert [row[:2] for row in trainings] == [["adversarial", "1"], ["standard", "1"]]
    assert all(row[2] and row[3] for row in trainings)  # on a busy machine 0 images/s, rounded
    accuracies = rows_of(text, "Accuracy on step_ll adversarial images**")
    assert [row[:2] for row in accuracies] == [["standard", "top 1"], ["adversarial", "top 1"]]
    assert all(len(row) == 2 + 1 + 4 and all("%" in cell for cell in row[2:]) for row in accuracies)
    commands = text.split("```bash\n")[1].split("\n```")[0].splitlines()
    assert [line.split("--out ")[1].split()[0] for line in commands] == ["runs/adversarial", "runs/standard"]
    assert all("--data DIR " in line and "--precision bfloat16" in line and "--fast" in line for line in commands)


def planned(trial: Done, epoch: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[int | None, Findings]:
    """What follows from a trial with three checkpoints, the last two of them ``epoch`` seconds apart."""

    def run(name: str, words: list[str], limit: float) -> Done:
        for step, at in ((0, 0.0), (73, 100.0), (146, 100.0 + epoch)):
            folder = Path(words[words.index("--out") + 1]) / "checkpoints" / f"step-{step:08d}"
            folder.mkdir(parents=True)
            os.utime(folder, (at, at))
        return trial

    monkeypatch.setattr(imagenette, "run", run)
    # 400 s for two trainings beside the evaluation and the time in which commands are stopped.
    setting = Setting(Deadline(time.monotonic() + 0.5 + imagenette.EVALUATION + 400))
    findings = Findings()
    job = imagenette.Job(setting, imagenette.FULL, root=tmp_path, folder=tmp_path)
    return imagenette._trial(findings, job), findings


@pytest.mark.parametrize(
    ("seconds", "epoch", "epochs"),
    [
        (30, 5.0, 32),  # of 200 s it takes 20 to begin, and nine tenths of the others are 162
        (20, 2.0, 40),  # at most
        (30, 500.0, 1),  # at least
    ],
)
def test_as_many_epochs_as_there_is_time_for(
    seconds: float, epoch: float, epochs: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without = "fastadv train: step_ll runs without capture=True: why\n"
    said = f"data.loader auto: torchvision, because of this\n{without}{without}more\n"
    trial = Done("trial of 2 epochs", [], seconds, 0, said)
    found, findings = planned(trial, epoch, tmp_path, monkeypatch)
    assert found == epochs and findings.right
    assert findings.checks == [
        f"trial of 2 epochs: exit code 0 ({seconds} s)",
        "trial of 2 epochs: fastadv train: step_ll runs without capture=True: why",
        f"loader, on {len(os.sched_getaffinity(0))} cores: torchvision, because of this",
        f"an epoch takes {epoch:.1f} s with its test and checkpoint: {epochs} for each network",
    ]


@pytest.mark.parametrize(
    ("code", "output", "said"),
    [
        (2, "fastadv train: jsonargparse is needed for this\n", "exit code 2: fastadv train: jsonargparse is needed"),
        (None, "", "stopped at its limit of time"),
    ],
)
def test_without_a_trial_nothing_is_trained(
    code: int | None, output: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = Done("trial of 2 epochs", [], 9, code, output)
    found, findings = planned(trial, 1.0, tmp_path, monkeypatch)
    assert found is None and not findings.right and said in findings.checks[0]


def test_a_training_that_was_stopped_is_reported_and_evaluated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[list[str]] = []

    def run(name: str, words: list[str], limit: float) -> Done:
        ran.append(words)
        if name == "adversarial":
            out = Path(words[words.index("--out") + 1])
            out.mkdir()
            (out / "log.jsonl").write_text(json.dumps({"epoch": 1, "test_accuracy": 0.5}) + "\n")
            return Done(name, words, 150, None, "")
        return Done(name, words, 1, 1, "no space left")

    monkeypatch.setattr(imagenette, "run", run)
    setting, findings = Setting(Deadline(time.monotonic() + 460)), Findings()
    job = imagenette.Job(setting, imagenette.FULL, root=tmp_path / "images", folder=tmp_path)
    imagenette._evaluate(findings, job, imagenette._train(findings, job, 30))
    assert findings.checks == [
        "adversarial: stopped at its limit of time (150 s)",
        "standard: exit code 1: no space left (1 s)",
        "evaluation: exit code 1: no space left (1 s)",
        "evaluation: it wrote no table",
    ]
    assert "| adversarial | 1 |  |  |" in findings.tables[1] and not findings.right
    assert str(tmp_path / "adversarial") in ran[-1] and str(tmp_path / "standard") not in ran[-1]


def test_speed_is_that_of_all_iterations_but_the_first_epochs() -> None:
    """One image in 1 ms and one in 0.5 ms are 2 in 1.5 ms; 0.1 and 0.4 of these are 0.3 of 1.5 ms."""
    rates = [(1, 5.0, 0.9), (2, 1000.0, 0.1), (2, 2000.0, 0.4)]
    first, *later = ({"epoch": epoch, "images_per_s": rate, "data_wait": wait} for epoch, rate, wait in rates)
    tests = [{"epoch": epoch, "test_accuracy": 0.1} for epoch in (1, 2)]
    assert imagenette.speed([first, tests[0], *later, tests[1]]) == ["2", "1,333", "20.0%"]
    assert imagenette.speed([first]) == ["0", "5", "90.0%"]
    assert imagenette.speed([]) == ["0", "", ""]


def packed_folder(folder: Path, top: str) -> Path:
    (folder / "made" / top / "train").mkdir(parents=True)
    archive = folder / "images.tar.gz"
    with tarfile.open(archive, "w:gz") as file:
        file.add(folder / "made" / top, arcname=top or ".")
    return archive


@pytest.mark.parametrize("top", ["", "imagenette2-160"])
@pytest.mark.parametrize("packed", [True, False])
def test_images_of_a_folder_or_of_an_archive(top: str, packed: bool, tmp_path: Path) -> None:
    archive = packed_folder(tmp_path, top)
    given = archive if packed else tmp_path / "made" / top
    root = imagenette.images(Setting(REHEARSAL.deadline, imagenette=given), tmp_path / "unpacked")
    assert (root / "train").is_dir() and (packed or root == given)


# --- curves and methods ----------------------------------------------------------------------------------------------


def test_curves_are_rehearsed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work: Callable[[int], Callable[[], object]] = lambda n: lambda: torch.ones(n)  # noqa: E731
    monkeypatch.setattr(cost_curves, "CURVES", [cost_curves.Curve("nothing", "of it", (1, 2), work)])
    monkeypatch.setattr(costs, "run", here)
    assert command.main(["--rehearse", "--parts", "curves", "--out", str(tmp_path)]) == 0
    report = (tmp_path / "curves.md").read_text()
    assert [row[0] for row in rows_of(report, "Cost against work")] == ["nothing"] * 2
    assert "python -m benchmarks.cost_curves --rounds 2 --out DIR" in report
    assert (tmp_path / "curves.svg").read_text().rstrip().endswith("</svg>")


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        (Setting(REHEARSAL.deadline), []),
        (
            Setting(REHEARSAL.deadline, fashion_mnist=Path("F")),
            ["--data-set", "fashion_mnist", "--data", "F", *costs.FASHION_MNIST],
        ),
        (REHEARSAL, costs.TINY),
    ],
)
@pytest.mark.parametrize("written", [True, False])
def test_methods_take_what_data_there_are(
    setting: Setting, words: list[str], written: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The benchmark itself has its own test: here its options are read."""
    read: list[Any] = []

    def run(name: str, command: list[str], limit: float, **environment: str) -> Done:
        assert command[1:3] == ["-m", "benchmarks.training_methods"]
        read.append(methods_parser().parse_args(command[3:]))
        assert command[3 : 3 + len(words)] == words and read[0].device == setting.device
        if written:
            read[0].out.write_text("# Ways\n\n- date\n\n## Digits\n\nrows\n")
            read[0].out.with_suffix(".svg").write_text("<svg/>")
        return Done(name, command, 480, None, "")

    monkeypatch.setattr(costs, "run", run)
    findings = costs.methods(setting)
    assert findings.right == written and len(read) == 1
    if written:
        shown, table = findings.tables
        assert table == "## Digits\n\nrows" and f"--device {setting.device} --out DIR/methods.md" in shown
        assert findings.figure == "<svg/>"
    else:
        assert findings.checks[1] == "training_methods: it wrote no table"
