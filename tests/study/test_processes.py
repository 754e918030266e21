"""Networks that are trained in separate processes: the commands, and the effect of signals."""

from __future__ import annotations

import signal
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch

from fastadv.cli import study as study_cli
from fastadv.cli import train
from fastadv.study import scales
from fastadv.study.networks import vary
from fastadv.study.runner import Machine
from fastadv.study.scales import Scale, imagenet
from fastadv.train import checkpoint

pytestmark = pytest.mark.usefixtures("scale")


class Started:
    """Stands in for a process: runs ``fastadv train`` with the same arguments in this one."""

    commands: ClassVar[list[list[str]]] = []
    signals: ClassVar[list[int]] = []
    code = 0

    def __init__(self, command: list[str]) -> None:
        self.commands.append(command)

    def wait(self) -> int:
        command = self.commands[-1]
        return self.code or train.main(command[command.index("train") + 1 :])

    def send_signal(self, number: int) -> None:
        self.signals.append(number)
        type(self).code = 128 + number


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch, scale: Scale) -> type[Started]:
    """Stands in for Popen, at a scale whose iterations take two minibatches."""
    two = replace(scale, base=vary(scale.base, {"accumulate": 2}))
    monkeypatch.setitem(scales.SMALL, "digits", lambda: two)
    kind = type("Started", (Started,), {"commands": [], "signals": []})
    monkeypatch.setattr("fastadv.study.runner.subprocess", SimpleNamespace(Popen=kind))
    return kind


def study(out: Path) -> int:
    return study_cli.main(["fixed_eps", "--device", "cpu", "--processes", "2", "--out", str(out)])


def test_torchrun_trains_each_network_in_its_run_folder(tmp_path: Path, started: type[Started], scale: Scale) -> None:
    assert study(tmp_path) == 0
    assert len(started.commands) == 3
    for command in started.commands:
        assert command[1:6] == ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        assert command[6:10] == ["-m", "fastadv", "train", "--recipe"] and command[-2:] == ["--resume", "auto"]
    trained = [checkpoint.load_config(checkpoint.resolve(path)) for path in (tmp_path / "networks").glob("*/")]
    assert {config.attack.eps for config in trained} == {
        None,
        *(float(scale.eps[index]) for index in scale.fixed_eps_indices),
    }
    assert study(tmp_path) == 0 and len(started.commands) == 3


def test_signals_are_forwarded(tmp_path: Path, started: type[Started], monkeypatch: pytest.MonkeyPatch) -> None:
    def wait(self: Any) -> int:
        signal.raise_signal(signal.SIGTERM)
        return int(self.code)

    monkeypatch.setattr(started, "wait", wait)
    assert study(tmp_path) == 143
    assert started.signals == [signal.SIGTERM] and len(started.commands) == 1


def test_a_failed_training_is_reported_and_the_others_run(
    tmp_path: Path, started: type[Started], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(started, "wait", lambda self: 1)
    assert study(tmp_path) == 1
    assert len(started.commands) == 3 and not (tmp_path / "times.jsonl").exists()
    told = capsys.readouterr().err
    assert "the training of Random eps failed: its processes ended with exit code 1; its run is" in told
    assert (tmp_path / "report.md").exists()


@pytest.mark.parametrize(("processes", "accumulate"), [(1, 50), (2, 25), (8, 6), (50, 1)])
def test_minibatches_are_shared_among_processes(processes: int, accumulate: int) -> None:
    network = imagenet().adversarial("")
    config = Machine("/data", torch.device("cuda", 0), None, processes).config(network)
    assert (config.accumulate, config.device) == (accumulate, "cuda:0" if processes == 1 else "cuda")


@pytest.mark.parametrize("processes", [40, 64])
def test_numbers_of_processes_that_change_the_training_are_rejected(processes: int) -> None:
    machine = Machine("/data", torch.device("cpu"), None, processes)
    with pytest.raises(ValueError, match=f"an iteration takes 50 minibatches of 32, but {processes} processes"):
        machine.config(imagenet().adversarial(""))


def test_small_scales_need_a_single_process(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert study(tmp_path) == 2
    assert "an iteration takes 1 minibatches of 32, but 2 processes would take 2" in capsys.readouterr().err
