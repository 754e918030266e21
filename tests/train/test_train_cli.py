from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fastadv.train import Trainer, checkpoint
from fastadv.train.cli import main

pytestmark = pytest.mark.usefixtures("few_digits")

SMALL = ["--recipe", "digits_step_ll", "--epochs", "2", "--device", "cpu", "--model.options.width", "0.25"]


def test_train_then_resume(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    assert main([*SMALL, "--out", str(out), "--checkpoint-every", "3", "--attack.lambda_", "0.5"]) == 0
    assert capsys.readouterr().out.strip() == str(out / "checkpoints/step-00000010")
    config = checkpoint.load_model(out).config
    assert (config.attack.lambda_, config.attack.eps_upper, config.checkpoint_every) == (0.5, 64, 3)
    for again in (["--out", str(out), "--resume"], [*SMALL, "--out", str(out), "--resume", "--attack.lambda_", "0.5"]):
        assert main(again) == 0
        assert "step-00000010" in capsys.readouterr().out


def test_default_folder_is_named_after_the_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(SMALL) == 0
    assert checkpoint.latest(Path("runs/digits_step_ll")) is not None
    assert main([*SMALL, "--resume"]) == 0


def test_interrupt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SMALL, "--out", str(tmp_path / "whole")]) == 0
    out = tmp_path / "run"
    train_step = Trainer.train_step

    def press_ctrl_c(trainer: Trainer, images: Tensor, labels: Tensor) -> None:
        train_step(trainer, images, labels)
        if trainer.step == 7:
            os.kill(os.getpid(), signal.SIGINT)

    handler = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "train_step", press_ctrl_c)
        assert main([*SMALL, "--out", str(out)]) == 130
    assert signal.getsignal(signal.SIGINT) is handler
    said = capsys.readouterr().err
    assert f"fastadv train --out {out} --resume" in said and "step-00000007" in said
    torch.manual_seed(123)
    assert main(["--out", str(out), "--resume"]) == 0
    weights = [(run / "checkpoints/step-00000010/model.safetensors").read_bytes() for run in (out, tmp_path / "whole")]
    assert weights[0] == weights[1]


@pytest.mark.parametrize("times", [1, 2])
def test_second_interrupt_stops_at_once(
    times: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    steps = []
    train_step = Trainer.train_step

    def press_ctrl_c(trainer: Trainer, images: Tensor, labels: Tensor) -> None:
        for _ in range(times):
            os.kill(os.getpid(), signal.SIGINT)
        train_step(trainer, images, labels)
        steps.append(trainer.step)

    monkeypatch.setattr(Trainer, "train_step", press_ctrl_c)
    assert main([*SMALL, "--out", str(tmp_path / "run")]) == 130
    assert steps == ([1] if times == 1 else [])
    assert f"step-0000000{2 - times} is the last checkpoint" in capsys.readouterr().err


def test_interrupt_before_the_last_test_is_not_success(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object) -> float:
        raise KeyboardInterrupt

    monkeypatch.setattr("fastadv.train.trainer.accuracy", interrupted)
    assert main([*SMALL, "--epochs", "1", "--out", str(tmp_path / "run")]) == 130
    assert "step-00000000 is the last checkpoint" in capsys.readouterr().err


def test_stopped_by_the_run_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("fastadv.train.task.ops.mixed_cross_entropy", lambda logits, *_: logits.sum() * float("nan"))
    assert main([*SMALL, "--out", str(tmp_path / "run")]) == 1
    said = capsys.readouterr().err
    assert "the loss is nan at iteration 1" in said and "step-00000000" in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--recipe", "nothing"], "recipe 'nothing' is neither a file that can be read nor one of cifar10_step_ll"),
        ([*SMALL, "--optimizer.rate", "1"], "unknown field optimizer.rate; accepted: name, lr"),
        ([*SMALL, "--attack.name", "deepfool"], "attack.name must be one of"),
        ([*SMALL, "--attack.k", "33"], "attack.k must be at most"),
        ([*SMALL, "--out", "old"], "old already holds a run"),
        ([*SMALL, "--out", "new", "--resume"], "new has no checkpoint to resume from"),
        (["--out", "new", "--resume"], "new is neither a checkpoint nor the folder of a run"),
        (["--resume"], "--resume needs --out"),
        (["--out", "old", "--resume", "--m", "16"], "m was 32 and is now 16"),
    ],
)
def test_mistakes(
    arguments: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*SMALL, "--out", "old"]) == 0
    before = sorted(Path("old").rglob("*"))
    capsys.readouterr()
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("fastadv train: ") and said in captured.err
    assert "Traceback" not in captured.err
    assert sorted(Path("old").rglob("*")) == before


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    for words in ("--recipe NAME", "digits_step_ll", "--resume", "--attack.lambda_", "exit codes"):
        assert words in text
