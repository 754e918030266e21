"""The command line's first level, and `fastadv info`."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fastadv import cli
from fastadv.utils import environment


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

    monkeypatch.setattr("fastadv.cli.importlib.import_module", interrupted)
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
    expected = f"fastadv {command}: this is work for {said} {command} 'A=a run' --out x\n" if rank == 0 else ""
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
