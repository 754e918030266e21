"""Folders for results: made and tried before the work, one process at a time."""

from __future__ import annotations

import select
import subprocess
import sys
from pathlib import Path

import pytest

from fastadv.cli import main
from fastadv.utils.files import locked_folder, make_folder

HOLD = """
import os, sys
from pathlib import Path
from fastadv.utils.files import locked_folder
with locked_folder(Path(sys.argv[1])):
    if sys.argv[2:] != ["fork"] or os.fork() > 0:
        print("held", flush=True)
    sys.stdin.read()
"""


def test_a_folder_is_made_with_those_above_it(tmp_path: Path) -> None:
    make_folder(tmp_path / "a" / "b c")
    make_folder(tmp_path / "a" / "b c")
    assert list((tmp_path / "a" / "b c").iterdir()) == []


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"cannot write to the folder .*file: it is a file"):
        make_folder(tmp_path / "file")


def test_one_process_writes_at_a_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A second one would take the first one's unfinished checkpoint for that of a dead run."""
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        with pytest.raises(OSError, match="another process is writing to the folder"), locked_folder(tmp_path):
            pass
        assert main(["train", "--data.name", "digits", "--epochs", "1", "--out", str(tmp_path)]) == 1
        assert "another process is writing to the folder" in capsys.readouterr().err
        # Whatever becomes of its checkpoints meanwhile.
        (tmp_path / "checkpoints" / "step-00000001").mkdir(parents=True)
        for resumed in (["--resume"], ["--resume", "auto", "--data.name", "digits"]):
            assert main(["train", "--out", str(tmp_path), *resumed]) == 2
            assert "another process is writing to the folder" in capsys.readouterr().err
        holder.communicate()
    assert main(["train", "--out", str(tmp_path), "--resume"]) == 2
    assert "no usable checkpoint" in capsys.readouterr().err
    with locked_folder(tmp_path):
        pass


def test_what_a_dead_process_has_forked_holds_nothing(tmp_path: Path) -> None:
    """As workers of a loader, which notice some seconds later that they are alone."""
    command = [sys.executable, "-c", HOLD, str(tmp_path), "fork"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
        with pytest.raises(OSError, match="another process is writing to the folder"), locked_folder(tmp_path):
            pass
        holder.kill()
        holder.wait()
        assert select.select([holder.stdout], [], [], 0)[0] == []  # the forked one still has the other end
        with locked_folder(tmp_path):
            pass
