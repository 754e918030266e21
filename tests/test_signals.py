"""Processes that a command starts: they end by their parent, or with it, and by nobody else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastadv.utils import signals

TIMEOUT = 120  # seconds

# The module alone: the package would import PyTorch, in each process.
SCRIPT = r"""
import importlib.util, multiprocessing, os, sys, threading, time
threading.Thread(target=time.sleep, args=(600,), daemon=True).start()  # as libraries do
spec = importlib.util.spec_from_file_location("signals", os.environ["SIGNALS"])
signals = importlib.util.module_from_spec(spec)
spec.loader.exec_module(signals)

def child():
    signals.obey_parent_only()
    os.write(1, f"{os.getpid()}\n".encode())  # at once: print may write the end of the line by itself
    time.sleep(600)

if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    children = [context.Process(target=child) for _ in range(2)]
    with signals.block_signals():
        for one in children:
            one.start()
    sys.stdin.readline()
    for one in children:
        one.terminate()
        one.join()
"""


@pytest.fixture(params=["fork", "forkserver", "spawn"])
def parent(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    script = tmp_path / "parent.py"
    script.write_text(SCRIPT)
    command, pipe = [sys.executable, str(script), request.param], subprocess.PIPE
    environment = {**os.environ, "SIGNALS": str(signals.__file__)}
    with subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, text=True) as process:
        yield process
        process.kill()


def children_of(parent: subprocess.Popen[str]) -> list[int]:
    assert parent.stdout is not None
    return [int(parent.stdout.readline()) for _ in range(2)]


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def all_end(pids: list[int]) -> bool:
    until = time.monotonic() + TIMEOUT
    while any(map(lives, pids)) and time.monotonic() < until:
        time.sleep(0.02)
    return not any(map(lives, pids))


def test_they_end_by_their_parent_alone(parent: subprocess.Popen[str]) -> None:
    children = children_of(parent)
    for child in children:
        for number in (signal.SIGTERM, signal.SIGINT):
            os.kill(child, number)
    time.sleep(0.5)
    assert all(map(lives, children))
    parent.communicate("now\n", timeout=TIMEOUT)
    assert parent.returncode == 0 and all_end(children)


def test_they_end_with_their_parent(parent: subprocess.Popen[str]) -> None:
    children = children_of(parent)
    parent.kill()
    assert all_end(children)
