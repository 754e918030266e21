"""The command line's first level, and `fastadv info`."""

from __future__ import annotations

import subprocess
import sys

import pytest

from fastadv import cli, info


@pytest.mark.parametrize(
    ("argv", "code", "text"),
    [
        ([], 2, "usage: fastadv COMMAND"),
        (["--help"], 0, "train a network on clean and adversarial examples"),
        (["--version"], 0, "0.1.0"),
        (["trian"], 2, "unknown command 'trian'"),
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


def test_core_needs_torch_and_numpy_alone() -> None:
    """Importing the package, its operators, attacks and `fastadv info` loads no optional dependency."""
    script = (
        "import sys, fastadv, fastadv.ops, fastadv.attacks, fastadv.info; fastadv.train; fastadv.models; "
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
    assert info.runs_on(arch, compiled) is runs
