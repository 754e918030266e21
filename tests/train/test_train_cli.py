from __future__ import annotations

import errno
import itertools
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fastadv import ops
from fastadv.cli.train import main
from fastadv.train import Trainer, checkpoint

pytestmark = pytest.mark.usefixtures("few_digits")

SMALL = ["--recipe", "digits_step_ll", "--epochs", "2", "--device", "cpu", "--model.options.width", "0.25"]


def test_train_then_resume(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    assert main([*SMALL, "--out", str(out), "--checkpoint-every", "3", "--attack.lambda_", "0.5"]) == 0
    captured = capsys.readouterr()
    assert captured.out.strip() == str(out / "checkpoints/step-00000010")
    assert f"next: fastadv evaluate {out} --attacks step_ll,iter_ll --eps 8,16,32,64\n" in captured.err
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


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopped_by_a_signal(
    number: signal.Signals,
    code: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([*SMALL, "--out", str(tmp_path / "whole")]) == 0
    out = tmp_path / "a run"
    train_step = Trainer.train_step

    def send(trainer: Trainer, minibatches: Iterable[tuple[Tensor, Tensor]]) -> None:
        train_step(trainer, minibatches)
        if trainer.step == 7:
            signal.raise_signal(number)  # os.kill may reach another thread first, and two signals become one

    handlers = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "train_step", send)
        assert main([*SMALL, "--out", str(out)]) == code
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == handlers
    said = capsys.readouterr().err
    assert f"{number.name}: stopping after this iteration" in said
    assert f"fastadv train --out '{out}' --resume" in said and "step-00000007" in said
    torch.manual_seed(123)
    assert main(["--out", str(out), "--resume"]) == 0
    weights = [(run / "checkpoints/step-00000010/model.safetensors").read_bytes() for run in (out, tmp_path / "whole")]
    assert weights[0] == weights[1]


@pytest.fixture
def as_in_a_terminal() -> Iterator[None]:
    """A process started in a shell's background ignores SIGINT, also the second one."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("as_in_a_terminal")
@pytest.mark.parametrize("times", [1, 2])
def test_second_interrupt_stops_at_once(
    times: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    steps = []
    train_step = Trainer.train_step

    def press_ctrl_c(trainer: Trainer, minibatches: Iterable[tuple[Tensor, Tensor]]) -> None:
        for _ in range(times):
            signal.raise_signal(signal.SIGINT)  # os.kill may reach another thread first, and two signals become one
        train_step(trainer, minibatches)
        steps.append(trainer.step)

    monkeypatch.setattr(Trainer, "train_step", press_ctrl_c)
    assert main([*SMALL, "--out", str(tmp_path / "run")]) == 130
    assert steps == ([1] if times == 1 else [])
    assert f"step-0000000{2 - times} is the last checkpoint" in capsys.readouterr().err


def test_longer_by_resuming(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "run")
    assert main([*SMALL, "--schedule.name", "constant", "--out", out]) == 0
    capsys.readouterr()
    assert main(["--out", out, "--resume", "--epochs", "3"]) == 0
    assert "10 of 15 iterations done, on cpu; epochs was 2 and is now 3\n" in capsys.readouterr().err
    assert main(["--out", out, "--resume"]) == 0  # the new number is now that of the run
    assert "15 of 15 iterations done, on cpu\n" in capsys.readouterr().err


def test_starts_or_continues(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    again = [*SMALL, "--out", str(tmp_path), "--resume", "auto"]
    for done in (0, 10):
        assert main(again) == 0
        assert f"{done} of 10 iterations done" in capsys.readouterr().err
    with pytest.raises(SystemExit) as refused:
        main([*SMALL, "--out", str(tmp_path), "--resume", "always"])
    assert refused.value.code == 2 and "must be one of no, yes, auto" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("first", "second", "code"),
    [
        ("/tmp/none_a/attempt_0/0/error.json", "/tmp/none_a/attempt_1/0/error.json", 0),
        ("/tmp/none_a/attempt_0/0/error.json", "/tmp/none_b/attempt_1/0/error.json", 2),
        ("", "", 2),
        ("/tmp/none_a/attempt_0/0/error.json", "", 2),
    ],
    ids=["restarted by the same torchrun", "another torchrun", "no torchrun", "torchrun once"],
)
def test_started_again_without_a_word(
    first: str, second: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that torchrun restarts finds its own run, and does not continue another one."""
    for error_file, expected in ((first, 0), (second, code)):
        monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", error_file)
        assert main([*SMALL, "--out", str(tmp_path)]) == expected


def refused(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another torchrun is refused, because the folder is locked."""

    def locked(folder: Path) -> None:
        raise OSError("another process writes to it")

    monkeypatch.setattr("fastadv.cli.run_training.locked_folder", locked)
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", "/tmp/none_b/attempt_0/0/error.json")
    assert main([*SMALL, "--out", str(run), "--resume"]) == 1


def killed(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next process of the same torchrun is not refused, and writes its note."""

    def write(path: Path, text: str) -> None:
        path.open("w").close()
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_text", write)
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", "/tmp/none_a/attempt_1/0/error.json")
    assert main([*SMALL, "--out", str(run)]) == 130


@pytest.mark.parametrize("happens", [refused, killed])
def test_a_run_stays_that_of_its_torchrun(
    happens: Callable[[Path, pytest.MonkeyPatch], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", "/tmp/none_a/attempt_0/0/error.json")
    assert main([*SMALL, "--out", str(tmp_path)]) == 0
    with monkeypatch.context() as patched:
        happens(tmp_path, patched)
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", "/tmp/none_a/attempt_2/0/error.json")
    assert main([*SMALL, "--out", str(tmp_path)]) == 0


@pytest.mark.parametrize(
    ("options", "attacks_and_sizes"),
    [
        (["--attack.k", "0"], "step_ll,iter_ll --eps 8,16,32,64"),
        (["--attack.eps", "4"], "step_ll,iter_ll --eps 0.5,1,2,4"),
        (["--attack.eps", "0"], "step_ll,iter_ll --eps 8,16,32,64"),
        (["--attack.name", "fgsm"], "step_ll,iter_ll --eps 8,16,32,64"),
        (["--attack.name", "iter_ll", "--attack.eps", "16"], "iter_ll --eps 2,4,8,16"),
        (["--phases", "[{epochs: 1}, {epochs: 1, attack: {eps: 8}}]"], "step_ll,iter_ll --eps 1,2,4,8"),
        (["--attack.training", "fast", "--attack.eps", "16"], "pgd --eps 2,4,8,16"),
        (["--attack.name", "fast_grad_l2", "--attack.eps", "400"], "pgd:norm=l2 --eps 50,100,200,400"),
    ],
)
def test_the_next_command(
    options: list[str], attacks_and_sizes: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    length = [] if "--phases" in options else ["--epochs", "1"]
    assert main([*SMALL, *length, "--out", str(tmp_path / "a run"), *options]) == 0
    said = f"next: fastadv evaluate '{tmp_path}/a run' --attacks {attacks_and_sizes}\n"
    assert said in capsys.readouterr().err


def test_interrupt_before_the_last_test_is_not_success(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object) -> float:
        raise KeyboardInterrupt

    monkeypatch.setattr("fastadv.train.validation.accuracy", interrupted)
    assert main([*SMALL, "--epochs", "1", "--out", str(tmp_path / "run")]) == 130
    assert "step-00000000 is the last checkpoint" in capsys.readouterr().err


# For each kind of training its options, and the minibatches of an epoch.
TRAININGS: dict[str, tuple[list[str], int]] = {
    "usual": ([], 5),
    "bfloat16": (["--precision", "bfloat16"], 5),
    "accumulating": (["--accumulate", "2"], 4),
    "clipped": (["--clip_grad_norm", "1"], 5),
    "averaged": (["--ema_decay", "0.9"], 5),
    "free": (["--attack.training", "free", "--attack.replays", "2", "--attack.eps", "8"], 10),
    "fast": (["--attack.training", "fast", "--attack.eps", "8"], 5),
    "trades": (["--attack.training", "trades", "--attack.eps", "8", "--attack.options.steps", "1"], 5),
    "paired": (["--attack.training", "paired"], 20),  # the losses of two halves, in twice the iterations
}
each_training = pytest.mark.parametrize(("options", "minibatches"), TRAININGS.values(), ids=TRAININGS)


def train_with_a_spoiled_loss(
    run: Path, options: list[str], at: int, spoil: Callable[[Tensor], Tensor], monkeypatch: pytest.MonkeyPatch
) -> int:
    """The exit code of an epoch in which the loss of one minibatch is changed."""
    minibatches = itertools.count(1)

    def spoiled(loss: Callable[..., Tensor], *given: Any) -> Tensor:
        return spoil(loss(*given)) if next(minibatches) == at else loss(*given)

    for place, loss in (
        ("fastadv.train.tasks.base.mixed_cross_entropy", ops.mixed_cross_entropy),
        ("fastadv.ops.trades_loss", ops.trades_loss),
    ):
        monkeypatch.setattr(place, partial(spoiled, loss))
    command = ["--epochs", "1", "--device", "cpu", "--model.options.width", "0.25", "--optimizer.lr", "0.001"]
    return main([*command, *options, "--out", str(run)])


@each_training
def test_a_loss_that_is_not_finite_is_no_success(
    options: list[str],
    minibatches: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Not even in the last iteration, or in a minibatch of it that is not the last."""
    at = minibatches - ("--accumulate" in options)
    assert train_with_a_spoiled_loss(tmp_path, options, at, lambda loss: loss * float("nan"), monkeypatch) == 1
    said = capsys.readouterr().err
    assert "fastadv train: the loss is nan at iteration" in said
    assert "the last good checkpoint is" in said and "step-00000000" in said and "next:" not in said


@each_training
def test_weights_that_the_last_iteration_spoils_are_no_success(
    options: list[str],
    minibatches: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The loss is finite, but its gradient is not."""

    def spoil(loss: Tensor) -> Tensor:
        return loss + (0 * loss).sqrt()

    assert train_with_a_spoiled_loss(tmp_path, options, minibatches, spoil, monkeypatch) == 1
    said = capsys.readouterr().err
    assert "fastadv train: the weights are not finite at iteration" in said and "next:" not in said


@pytest.mark.parametrize(("accuracy", "guesses"), [(0.0, True), (0.25, True), (0.3, False)])
def test_a_network_that_may_be_guessing(
    accuracy: float,
    guesses: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """11 of 64 test images are of the most frequent class: 17.2 %, plus twice 4.7 %."""
    monkeypatch.setattr("fastadv.train.validation.accuracy", lambda *_: accuracy)
    assert main([*SMALL, "--epochs", "1", "--out", str(tmp_path / "run")]) == 0
    said = [line for line in capsys.readouterr().err.splitlines() if "no better than guessing" in line]
    start = f"fastadv train: the test accuracy, {accuracy:.2%}, is no better than guessing, which gives up to 26.62%. "
    assert len(said) == guesses and all(line.startswith(start) for line in said)
    assert main(["--out", str(tmp_path / "run"), "--resume"]) == 0
    assert "guessing" not in capsys.readouterr().err  # nothing was trained, and nothing tested


def test_a_full_disk_is_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("fastadv.train.json_log.JsonLog.write", full)
    assert main([*SMALL, "--out", str(tmp_path / "run")]) == 1
    assert "fastadv train: [Errno 28] No space left" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--recipe", "nothing"], "recipe 'nothing' is neither a readable file nor one of cifar10_step_ll"),
        (["--recipe", "digit_step_ll"], "(did you mean digits_step_ll?)"),
        ([*SMALL, "--optimizer.rate", "1"], "unknown option --optimizer.rate; fastadv train --help lists them all"),
        ([*SMALL, "--lr", "1"], "unknown option --lr (did you mean --optimizer.lr?)"),
        ([*SMALL, "--output", "new"], "unknown option --output (did you mean --out?)"),
        ([*SMALL, "--attack.eps", "8/255"], "8/255 on a [0, 1] scale is 8 here"),
        ([*SMALL, "--out", "old/log.jsonl"], "cannot write to the folder old/log.jsonl: it is a file"),
        ([*SMALL, "--out", "old/log.jsonl/new"], "cannot write to the folder old/log.jsonl/new: Not a directory"),
        ([*SMALL, "--out", "/proc/new"], "cannot write to the folder /proc/new: "),
        ([*SMALL, "--attack.name", "deepfool"], "attack.name must be one of"),
        ([*SMALL, "--attack.k", "33"], "attack.k must be at most"),
        ([*SMALL, "--out", "old"], "old already holds a run"),
        ([*SMALL, "--out", "new", "--resume"], "new has no checkpoint to resume from"),
        (["--out", "new", "--resume"], "new is neither a checkpoint nor the folder of a run"),
        (["--resume"], "--resume needs --out"),
        ([*SMALL, "--out", "new", "--accumulate", "9"], "data: accumulate=9 is more than the 5 minibatches"),
        (
            [*SMALL, "--out", "new", "--model.name", "inception_v3", "--data.space", "symmetric"],
            "model: inception_v3: images [C, H, W] = [1, 8, 8] do not fit: inception_v3 takes images [N, C, H, W] of "
            "at least 75 x 75 pixels, got [2, 1, 8, 8]; small_cnn takes smaller ones; choose another model.name, or",
        ),
        (["--out", "old", "--resume", "--m", "16"], "m was 32 and is now 16"),
        (["--out", "old", "--resume", "--epochs", "9"], "epochs was 2 and is now 9; a cosine schedule depends on"),
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


@pytest.mark.parametrize(
    ("arguments", "defaults"),
    [
        ([], ["default: 10", "default: 16.0", "default: 0.045", "default: constant"]),
        (["--recipe", "digits_step_ll"], ["default: 20", "default: 64.0", "default: 0.002", "default: cosine"]),
        (["--out", "run", "--resume"], ["default: 2", "default: 64.0", "default: 0.002", "default: cosine"]),
    ],
)
def test_help_shows_the_values_of_the_recipe_or_run(
    arguments: list[str],
    defaults: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    if "run" in arguments:
        assert main([*SMALL, "--out", "run"]) == 0
        capsys.readouterr()
    with pytest.raises(SystemExit):
        main([*arguments, "--help"])
    options = " ".join(capsys.readouterr().out.split()).split(" --")
    fields = ("epochs EPOCHS", "attack.eps_upper EPS_UPPER", "optimizer.lr LR", "schedule.name {")
    for field, default in zip(fields, defaults, strict=True):
        (described,) = [option for option in options if option.startswith(field)]
        assert f"{default})" in described
