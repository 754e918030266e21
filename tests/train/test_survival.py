"""Runs that are killed or terminated end with the weights of an undisturbed run: digits under torchrun, and images in
files, whose loader has its own processes.

FASTADV_KILLS sets how often the soak test kills; FASTADV_KILL_SEED sets when.
"""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest

from fastadv.train import TrainConfig, checkpoint
from fastadv.train.config_parsing import parse_config, read_recipe
from tests.data.loaders import LOADERS, each
from tests.data.pictures import write_data_set
from tests.train import runs
from tests.train.group import command, succeeded, together
from tests.train.test_trainer import log_of, same

pytestmark = pytest.mark.slow

KILLS = int(os.environ.get("FASTADV_KILLS", "3"))
SEED = int(os.environ.get("FASTADV_KILL_SEED", "0"))
RECIPE = ["--recipe", "digits_step_ll", "--device", "cpu", "--epochs", str(max(5, 2 * KILLS))]
RECIPE += ["--checkpoint-every", "7", "--model.options.dropout", "0.2"]
TIMEOUT = 240  # seconds; on a busy machine, starting the processes takes half a minute


def config() -> TrainConfig:
    return parse_config(read_recipe("digits_step_ll"), RECIPE[2:])


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("undisturbed")
    succeeded(together(2, runs.train_all_digits, config(), run))
    return run


class Torchrun:
    """``torchrun --nproc-per-node=2 ... -m fastadv train --out RUN ...``, and its workers."""

    def __init__(self, run: Path, *options: str, restarts: int = 0) -> None:
        launch = ["--standalone", "--nproc-per-node=2", f"--max-restarts={restarts}", "-m", "fastadv", "train"]
        command = [sys.executable, "-m", "torch.distributed.run", *launch, *RECIPE, "--out", str(run), *options]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self._log = run.with_name(run.name + ".txt").open("w+")
        self.agent = subprocess.Popen(command, env=environment, stdout=self._log, stderr=subprocess.STDOUT)

    def workers(self) -> set[int]:
        children = Path(f"/proc/{self.agent.pid}/task/{self.agent.pid}/children")
        return {int(pid) for pid in children.read_text().split() if b"\0train\0" in _command_line(int(pid))}

    def both_workers(self, besides: set[int]) -> set[int]:
        """The two workers, if they are there and not among ``besides``."""
        found = self.workers() - besides
        return found if len(found) == 2 else set()

    def end(self) -> tuple[int, str]:
        """The exit code, once it is there, and all that was printed."""
        code = self.agent.wait(TIMEOUT)
        self._log.seek(0)
        return code, self._log.read()

    def close(self) -> None:
        for pid in self.workers() if self.agent.poll() is None else ():
            os.kill(pid, signal.SIGKILL)
        self.agent.kill()
        self.agent.wait()
        self._log.close()


@pytest.fixture
def torchrun() -> Iterator[Callable[..., Torchrun]]:
    started = []

    def start(*arguments: Any, **options: Any) -> Torchrun:
        started.append(Torchrun(*arguments, **options))
        return started[-1]

    yield start
    for one in started:
        one.close()


def _command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:  # it has just exited
        return b""


def wait_for(what: Callable[[], Any]) -> Any:
    until = time.monotonic() + TIMEOUT
    while time.monotonic() < until:
        if found := what():
            return found
        time.sleep(0.02)
    raise TimeoutError(f"waited for {TIMEOUT} seconds")


def last_step(run: Path) -> int:
    log = run / "log.jsonl"
    lines = [line for line in (log.read_text() if log.exists() else "").splitlines(True) if line.endswith("\n")]
    return int(json.loads(lines[-1])["step"]) if lines else 0


def has_reached(run: Path, step: int) -> bool:
    return last_step(run) >= step


def assert_same_run(run: Path, other: Path) -> None:
    first, second = checkpoint.latest(run), checkpoint.latest(other)
    assert first is not None and second is not None and first.name == second.name
    assert (first / "model.safetensors").read_bytes() == (second / "model.safetensors").read_bytes()
    assert same(checkpoint.load_state(first), checkpoint.load_state(second))
    assert log_of(run) == log_of(other)


@pytest.mark.timeout(600 + 120 * KILLS)
def test_killed_at_random_moments(
    undisturbed: Path, tmp_path: Path, torchrun: Callable[..., Torchrun], capsys: pytest.CaptureFixture[str]
) -> None:
    """Kill either while it starts, trains, tests or saves: torchrun restarts both, and they find their run."""
    run, choice = tmp_path / "run", random.Random(SEED)
    launched = torchrun(run, restarts=KILLS)
    between = last_step(undisturbed) // (2 * KILLS + 2)  # in half of the run, because it continues until the kill
    seen: set[int] = set()
    killed_at = []
    for _ in range(KILLS):
        workers = wait_for(partial(launched.both_workers, seen))
        if choice.random() < 0.3:
            time.sleep(choice.uniform(0, 5))  # while it starts, most likely
        else:
            wait_for(partial(has_reached, run, last_step(run) + choice.randrange(1, between)))
            time.sleep(choice.uniform(0, 0.4))
        killed_at.append(last_step(run))
        os.kill(choice.choice(sorted(workers)), signal.SIGKILL)
        seen |= workers
    code, printed = launched.end()
    with capsys.disabled():
        print(f" killed after iterations {killed_at}", end="")
    assert code == 0, printed
    assert_same_run(run, undisturbed)


def test_the_other_one_says_it_in_a_line(tmp_path: Path, torchrun: Callable[..., Torchrun]) -> None:
    launched = torchrun(tmp_path / "run")
    wait_for(lambda: last_step(tmp_path / "run"))
    os.kill(max(launched.workers()), signal.SIGKILL)
    code, printed = launched.end()
    assert code == 1
    assert re.search(
        r"^fastadv train: process \d: another process has died or cannot be reached \(.+\)$", printed, re.M
    )
    assert not re.search(r"rank\d\]: *Traceback", printed), printed


def test_terminated(undisturbed: Path, tmp_path: Path, torchrun: Callable[..., Torchrun]) -> None:
    """SIGTERM to torchrun reaches its workers; the same command continues the run."""
    run = tmp_path / "run"
    launched = torchrun(run, "--resume", "auto")
    wait_for(lambda: last_step(run))
    launched.agent.send_signal(signal.SIGTERM)
    code, printed = launched.end()
    assert code != 0
    assert printed.count("SIGTERM: stopping after this iteration") == 1, printed
    stopped = checkpoint.latest(run)
    assert (
        stopped is not None
        and f"{stopped} is the last checkpoint; continue with: torchrun ... -m fastadv train --out" in printed
    )
    assert checkpoint.read_meta(stopped).step >= last_step(run) > 0
    code, printed = torchrun(run, "--resume", "auto").end()
    assert code == 0, printed
    assert_same_run(run, undisturbed)


# --- images in files -------------------------------------------------------------------------------------------------


def session_of(leader: int) -> set[int]:
    """Processes of a session that are still running."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has just exited
            state, _, _, session = stat.read_text().rpartition(")")[2].split()[:4]
            found |= {int(stat.parent.name)} if int(session) == leader and state not in "ZX" else set()
    return found


def on_images(run: Path, images: Path, loader: str) -> BaseProcess:
    options = ["--data.name", "imagenet", "--data", str(images), "--data.size", "16", "--data.loader", loader]
    options += ["--data.workers", "2", "--m", "6", "--attack.k", "3", "--epochs", "3", "--log_every", "1"]
    options += ["--checkpoint_every", "5", "--model.options.dropout", "0.5", "--model.options.width", "0.25"]
    options += ["--device", "cpu", "--resume", "auto"]
    return command(["train", *options, "--out", str(run)], run.with_name(run.name + ".txt"))


@each("loader", {name: name for name in LOADERS})
def test_images_in_files(loader: str, tmp_path: Path) -> None:
    """The loader's workers get the signals too, and are needed until the checkpoint; none outlives the run.

    The run begins anew while those of the killed one may still be there.
    """
    images, run, leaders = tmp_path / "images", tmp_path / "run", []
    write_data_set(images, per_class=32, classes=3)
    undisturbed = on_images(tmp_path / "undisturbed", images, loader)
    for number, code in ((signal.SIGTERM, 143), (signal.SIGKILL, -signal.SIGKILL)):
        before, process = last_step(run), on_images(run, images, loader)
        leaders.append(process.pid)
        wait_for(lambda before=before: last_step(run) > before)
        (os.kill if number == signal.SIGKILL else os.killpg)(process.pid, number)
        process.join(TIMEOUT)
        assert process.exitcode == code, run.with_name("run.txt").read_text()
        stopped = checkpoint.latest(run)
        assert stopped is not None
        assert number == signal.SIGKILL or checkpoint.read_meta(stopped).step >= last_step(run) > before
    for process in (undisturbed, on_images(run, images, loader)):
        process.join(TIMEOUT)
        assert process.exitcode == 0, run.with_name("run.txt").read_text()
    assert_same_run(run, tmp_path / "undisturbed")
    wait_for(lambda: not any(map(session_of, leaders)))
