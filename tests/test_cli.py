"""The command line's first level, and `fastadv info`."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import get_args

import pytest

from fastadv import attacks, cli, data
from fastadv.cli import names
from fastadv.cli.arguments import create_parser
from fastadv.data.config import DataConfig, LoaderName, SpaceName
from fastadv.data.datasets import FOLDER
from fastadv.data.sources import manifest
from fastadv.data.transforms.preprocessing import InterpolationName
from fastadv.study.experiments import STUDIES
from fastadv.utils import environment
from tests.completeness import check_complete


@pytest.mark.parametrize(
    ("argv", "code", "text"),
    [
        ([], 2, "usage: fastadv COMMAND"),
        (["--help"], 0, "train a network on clean and adversarial examples"),
        (["--version"], 0, "0.1.0"),
        (["trian"], 2, "unknown command 'trian' (did you mean train?)"),
        (["help"], 0, "usage: fastadv COMMAND"),
        (["version"], 0, "0.1.0"),
        (["info"], 0, "sign_step_"),
    ],
)
def test_first_level(argv: list[str], code: int, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(argv) == code
    captured = capsys.readouterr()
    assert text in captured.out + captured.err


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_command_has_help(command: str) -> None:
    run = subprocess.run([sys.executable, "-m", "fastadv", command, "--help"], capture_output=True, text=True)
    assert run.returncode == 0 and "usage:" in run.stdout and f"fastadv {command}" in run.stdout


HELP = ["", *(name for name in cli.COMMANDS if name != "data"), "data check", "train --recipe digits_step_ll"]


@pytest.mark.parametrize("command", HELP)
def test_help_comes_at_once(command: str) -> None:
    """Importing PyTorch takes over a second."""
    program = [sys.executable, "-X", "importtime", "-m", "fastadv", *command.split(), "--help"]
    run = subprocess.run(program, capture_output=True, text=True)
    imported = {line.rpartition("|")[2].strip() for line in run.stderr.splitlines()}
    assert run.returncode == 0 and "fastadv.cli" in imported and "torch" not in imported


@pytest.mark.parametrize("command", ["", *(name for name in cli.COMMANDS if name != "data"), "data check"])
def test_help_fits_a_terminal_of_80_columns(command: str) -> None:
    program = [sys.executable, "-m", "fastadv", *command.split(), "--help"]
    run = subprocess.run(program, capture_output=True, text=True, env={**os.environ, "COLUMNS": "80"})
    assert run.returncode == 0 and [line for line in run.stdout.splitlines() if len(line) > 80] == []


def test_help_breaks_no_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    parser = create_parser(
        "command", description="A NETWORK@weights.safetensors-and-more-of-them file.\n\n  kept  as is"
    )
    parser.add_argument("--option", help="one-step-of-the-attack-with-labels or two-steps-of-it")
    shown = parser.format_help()
    words = {"NETWORK@weights.safetensors-and-more-of-them", "one-step-of-the-attack-with-labels", "two-steps-of-it"}
    assert words <= {*shown.split()} and "\n  kept  as is\n" in shown


def test_the_names_in_help_are_those_that_commands_accept() -> None:
    check_complete("ATTACKS of fastadv/cli/names.py", names.ATTACKS, attacks.names())
    assert list(names.ATTACKS) == attacks.names() and list(names.DATA_SETS) == data.names() and names.FOLDER == FOLDER
    assert get_args(SpaceName) == names.SPACES and get_args(LoaderName) == names.LOADERS
    assert get_args(InterpolationName) == names.INTERPOLATIONS
    described = {study.name: f"{study.source}: {study.title.lower()}" for study in STUDIES.values()}
    check_complete("STUDIES of fastadv/cli/names.py", names.STUDIES, described)
    assert list(described.items()) == list(names.STUDIES.items())
    default = DataConfig()
    assert (default.central, default.interpolation) == (names.CENTRAL, names.INTERPOLATION)
    assert names.MANIFEST == manifest.FILE


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["evaluate"], "fastadv evaluate: the following arguments are required: [NAME=]MODEL"),
        (["transfer", "--limit", "0"], "fastadv transfer: argument --limit: must be a whole number"),
        (
            ["evaluate", "x", "--dataset", "cifra10"],
            "fastadv evaluate: argument --dataset: must be one of digits, mnist, fashion_mnist, cifar10, imagenet, "
            "folder, got 'cifra10' (did you mean cifar10?)",
        ),
        (["evaluate", "x", "--loader", "dalli"], "(did you mean dali?)"),
        (
            ["train", "--resume", "atuo"],
            "argument --resume: must be one of no, yes, auto, got 'atuo' (did you mean auto?)",
        ),
        (["evaluate", "x", "--attacks", "pdg"], "unknown attack 'pdg' (did you mean pgd?)"),
        (["study", "tabel1"], "(did you mean table1?)"),
        (["data", "chek", "DIR"], "(did you mean check?)"),
    ],
)
def test_a_mistake_is_one_line_without_the_usage(
    arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(arguments)
    line, hint = capsys.readouterr().err.splitlines()
    assert stopped.value.code == 2 and expected in line and hint == f"See fastadv {arguments[0]} --help."


@pytest.mark.parametrize("moment", ["fastadv.cli.warning_lines", "torch"])
def test_ctrl_c_in_the_first_second_prints_no_traceback(moment: str, tmp_path: Path) -> None:
    """Sent to itself while it imports: its own modules, then PyTorch."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os, signal, sys\n"
        "class Interrupt:\n"
        "    def find_spec(self, name, *_):\n"
        f"        if name == {moment!r}:\n"
        "            sys.meta_path.remove(self)\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Interrupt())\n"
    )
    path = os.pathsep.join([str(tmp_path), str(Path(cli.__file__).parents[2])])
    program = [sys.executable, "-m", "fastadv", "evaluate", "run"]
    run = subprocess.run(program, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True)
    silent = moment != "torch"
    assert run.returncode == (-signal.SIGINT if silent else 130)  # 130 in a shell either way
    assert run.stderr == ("" if silent else "fastadv evaluate: interrupted\n")


def test_a_command_in_a_thread() -> None:
    """Where no handler of signals can be installed."""
    with ThreadPoolExecutor(1) as threads:
        assert threads.submit(cli.main, ["report", "nowhere"]).result() == 2


def test_a_reader_that_goes_away_is_no_traceback() -> None:
    program = f"{sys.executable} -m fastadv --help | true"
    assert subprocess.run(program, shell=True, capture_output=True, text=True).stderr == ""


def test_info_with_an_instruction_set_that_is_not_there() -> None:
    """The command that tells what is wrong works when it is."""
    environment = {**os.environ, "FASTADV_ISA": "mmx"}
    command = [sys.executable, "-m", "fastadv", "info"]
    run = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert run.returncode == 0 and "FASTADV_ISA=mmx names no instruction set" in run.stdout


def test_help_is_plain_text(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["info", "--help"])
    assert "`" not in capsys.readouterr().out


def test_an_interrupt_before_the_command_begins(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(module: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("fastadv.cli.exits.importlib.import_module", interrupted)
    assert cli.main(["info"]) == 130
    assert capsys.readouterr().err == "fastadv info: interrupted\n"


def test_a_warning_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    command = ["train", "--data.name", "digits", "--epochs", "1", "--model.options.width", "0.1"]
    assert cli.main([*command, "--out", "run", "--checkpoint-every", "20"]) == 0
    (tmp_path / "run/checkpoints/step-00000040/state.pt").unlink()
    attack = ["--attacks", "step_ll", "--eps", "8", "--out", "evaluation"]
    for program, arguments, text in (
        # A checkpoint that is looked for in two places.
        (
            "train",
            ["--out", "run", "--resume"],
            "run/checkpoints/step-00000040 is incomplete: no state.pt;",
        ),
        (
            "evaluate",
            ["run", "--data", "images", *attack],
            "digits is part of scikit-learn: root (--data) and download",
        ),
    ):
        capsys.readouterr()
        assert cli.main([program, *arguments]) == 0
        lines = capsys.readouterr().err.splitlines()
        assert [line.startswith(f"fastadv {program}: warning: {text}") for line in lines].count(True) == 1
        assert not any("UserWarning" in line for line in lines)


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("command", sorted(set(cli.COMMANDS) - {"info", "train", "evaluate"}))
def test_what_several_processes_would_do_in_each_others_way_is_refused(
    command: str, rank: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {"RANK": rank, "WORLD_SIZE": 2, "LOCAL_RANK": rank}.items():
        monkeypatch.setenv(name, str(value))
    assert cli.main([command, "A=a run", "--out", "x"]) == 2
    said = "one process, and torchrun started 2: run it without torchrun, as fastadv"
    expected = f"fastadv {command}: this command runs in {said} {command} 'A=a run' --out x\n" if rank == 0 else ""
    assert capsys.readouterr().err == expected


@pytest.mark.parametrize(("argv", "code", "said"), [(["--version"], 0, "0.1.0"), (["trian"], 2, "unknown command")])
@pytest.mark.parametrize("processes", [1, 2])
def test_one_of_several_processes_ends_before_the_interpreter_is_dismantled(
    argv: list[str], code: int, said: str, processes: int
) -> None:
    """Threads of gloo's are not done with Python then; what was printed arrives, and so does the exit code."""
    program = (
        "import atexit, runpy; atexit.register(print, 'dismantled'); runpy.run_module('fastadv', run_name='__main__')"
    )
    environment = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": str(processes)}
    run = subprocess.run(
        [sys.executable, "-c", program, *argv], env={**os.environ, **environment}, capture_output=True, text=True
    )
    assert run.returncode == code and said in run.stdout + run.stderr
    assert ("dismantled" in run.stdout) == (processes == 1)


def test_core_needs_torch_and_numpy_alone() -> None:
    """Importing the package, its operators, attacks and `fastadv info` loads no optional dependency."""
    script = (
        "import sys, fastadv, fastadv.ops, fastadv.attacks, fastadv.cli.info; fastadv.train; fastadv.models; "
        "loaded = {name.split('.')[0] for name in sys.modules}; "
        "optional = {'jsonargparse', 'rich', 'safetensors', 'sklearn', 'tensorboard', 'torchvision', 'matplotlib'}; "
        "assert not loaded & optional, loaded & optional"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "jsonargparse", None)
    assert cli.main(["train", "--recipe", "digits_step_ll"]) == 2
    assert "pip install 'fastadv[train]'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arch", "compiled", "runs"),
    [
        (90, "80-real 90-real 100", True),
        (86, "80-real 90-real 100", True),  # the same major architecture
        (75, "80-real 90-real 100", False),
        (103, "80-real 90-real 100", True),
        (120, "80-real 90-real 100", True),  # by the PTX of the last
        (120, "80-real 90-real", False),
        (90, "", False),
        (89, "90-virtual", False),
    ],
)
def test_which_gpus_the_kernels_run_on(arch: int, compiled: str, runs: bool) -> None:
    assert environment.runs_on(arch, compiled) is runs


def ascii_stream() -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="strict", write_through=True)


def said(stream: io.TextIOWrapper) -> str:
    return stream.buffer.getvalue().decode("ascii")  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "arguments",
    [
        ["data", "check", "nowhere-\u03b5"],
        ["evaluate", "nowhere-\u03b5"],
        ["transfer", "nowhere-\u03b5", "\u03b5"],
        ["report", "nowhere-\u03b5"],
        ["train", "--recipe", "nowhere-\u03b5", "--out", "unused"],
        ["nowhere-\u03b5"],
        ["evaluate", "nowhere-\udcce\u03b5"],  # a byte of a name that the locale does not know
    ],
)
def test_every_command_says_every_character(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a terminal has ASCII alone, what it does not have is escaped; the streams are then as they were."""
    streams = [ascii_stream(), ascii_stream()]
    monkeypatch.setattr("sys.stdout", streams[0])
    monkeypatch.setattr("sys.stderr", streams[1])
    try:
        code = cli.main(arguments)
    except SystemExit as ended:  # by argparse
        code = ended.code
    assert code == 2 and "\\u03b5" in said(streams[0]) + said(streams[1])
    assert [stream.errors for stream in streams] == ["strict", "strict"]
