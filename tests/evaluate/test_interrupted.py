"""Evaluations that are interrupted anywhere continue, and lose no more than the batch that they were in."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from fastadv import PixelSpace
from fastadv.cli import main
from fastadv.data import ImageSet
from fastadv.distributed import ALONE
from fastadv.evaluate import Counts, Evaluation, Record, RecordFile, Subject, Sweep, read_records, run
from fastadv.evaluate.counts import BatchCounts
from fastadv.evaluate.parts import PartialPass
from tests.evaluate.test_evaluate_cli import save_run
from tests.train import runs
from tests.train.group import Raised, command, succeeded, together

# An attack that leaves a line for each batch, and takes a while if it is told to.
SLOW = """
import time
from pathlib import Path

from fastadv.attacks import PGD

FOLDER = Path({folder!r})


class Slow(PGD):
    name = "slow"

    def start_(self, adv, clean, eps, seed, offset):
        with (FOLDER / "started").open("a") as file:
            file.write(f"{{offset}} ")
        time.sleep(0.3 if (FOLDER / "slowly").exists() else 0)
        super().start_(adv, clean, eps, seed, offset)
"""


def record_of(out: Path) -> Record:
    record = read_records(out / "robustness.jsonl", Record)[-1]
    return replace(record, seconds=0.0)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_command_that_is_killed_loses_one_batch(number: signal.Signals, tmp_path: Path) -> None:
    run_folder, attack = save_run(tmp_path / "standard"), tmp_path / "slow_attack.py"
    attack.write_text(SLOW.format(folder=str(tmp_path)))
    started, slowly = tmp_path / "started", tmp_path / "slowly"
    options = ["--attacks", f"{attack}:Slow:steps=2", "--eps", "8", "--limit", "60", "--batch-size", "10"]
    given = ["evaluate", str(run_folder), *options, "--device", "cpu", "--json", "--out"]

    def batches() -> list[int]:
        return list(map(int, started.read_text().split())) if started.exists() else []

    slowly.touch()
    broken = command([*given, str(tmp_path / "out")], tmp_path / "said")
    deadline = time.monotonic() + 120
    while len(batches()) < 4 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert broken.pid is not None
    os.kill(broken.pid, number)
    broken.join(60)
    assert broken.exitcode == (-signal.SIGKILL if number == signal.SIGKILL else 130)
    assert batches() == [0, 10, 20, 30]
    assert [record.attack for record in read_records(tmp_path / "out/robustness.jsonl", Record)] == ["clean"]

    slowly.unlink()
    for out, measured in (("out", [30, 40, 50]), ("whole", [0, 10, 20, 30, 40, 50])):
        started.unlink()
        assert main([*given, str(tmp_path / out)]) == 0
        assert batches() == measured
    assert record_of(tmp_path / "out") == record_of(tmp_path / "whole")
    assert not list((tmp_path / "out").glob("*.parts"))


# --- several processes -----------------------------------------------------------------------------------------------

GIVEN = {"attacks": ["pgd:steps=4", "iter_ll:steps=9"], "eps": [2.0, 6.0], "batch_size": 7, "early_stop": True}


def test_several_processes_give_the_verdicts_of_one_bit_for_bit(tmp_path: Path) -> None:
    [(alone, calls)] = succeeded(together(1, runs.evaluated_in_double, tmp_path / "alone", 61, GIVEN))
    assert all(record.stops_early for record in alone[1:]) and len({record.correct for record in alone}) > 2
    both = succeeded(together(2, runs.evaluated_in_double, tmp_path / "both", 61, GIVEN))
    assert [records for records, _ in both] == [alone] * 2
    assert all(0 < of_one < calls for _, of_one in both)
    assert [replace(r, seconds=0.0) for r in read_records(tmp_path / "both/robustness.jsonl", Record)] == alone


@pytest.mark.parametrize(("first", "then"), [(2, 1), (1, 2)])
def test_any_number_of_processes_continues(first: int, then: int, tmp_path: Path) -> None:
    [(alone, calls)] = succeeded(together(1, runs.evaluated_in_double, tmp_path / "alone", 61, GIVEN))
    broken = together(first, runs.evaluated_in_double, tmp_path / "out", 61, GIVEN, 40)
    assert all(isinstance(one, Raised) for one in broken)
    continued = succeeded(together(then, runs.evaluated_in_double, tmp_path / "out", 61, GIVEN))
    assert [records for records, _ in continued] == [alone] * then
    # Each process has lost its batch, of at most 9 gradients and a forward pass, and attacks look once more whether the
    # network draws.
    assert sum(of_one for _, of_one in continued) <= calls - first * (39 - 10) + 4 * (then + 1)


# --- what counts as the same batch -----------------------------------------------------------------------------------


class Counted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(4, 6)
        self.calls = 0
        self.interrupt_at = 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:  # [N, 1, 2, 2] -> [N, 6]
        self.calls += 1
        if self.calls == self.interrupt_at:
            raise KeyboardInterrupt
        return self.layer(images.flatten(1))


def sweep(**given: Any) -> Sweep:
    pixels = torch.randint(0, 256, (12, 1, 2, 2), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    images = ImageSet(pixels, torch.arange(12) % 6, tuple("abcdef"))
    return Sweep(
        **{"dataset": "made_up", "images": images, "attacks": ["fgsm"], "eps": [2, 4], "batch_size": 3, **given}
    )


def interrupted_then(path: Path, monkeypatch: pytest.MonkeyPatch | None = None, **given: Any) -> int:
    """How often the network is called to continue an evaluation that was interrupted after three clean batches."""
    broken = Counted()
    broken.interrupt_at = 4
    with pytest.raises(KeyboardInterrupt):
        run(sweep(), [Subject("a", broken, PixelSpace.unit())], RecordFile(path, Record))
    if monkeypatch is not None:
        monkeypatch.setattr("fastadv.__version__", "0.0.1")
    model = Counted()
    run(sweep(**given), [Subject("a", model, PixelSpace.unit())], RecordFile(path, Record))
    return model.calls


def test_only_parts_of_the_same_evaluation_are_added_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = 4 * (1 + 1 + 2)  # of each batch: clean, a gradient for both sizes, each size
    assert interrupted_then(tmp_path / "same.jsonl") == whole - 3
    assert interrupted_then(tmp_path / "seed.jsonl", seed=1) == whole
    assert interrupted_then(tmp_path / "batches.jsonl", batch_size=4) == 3 * 4  # three batches instead of four
    assert interrupted_then(tmp_path / "version.jsonl", monkeypatch) == whole


def test_a_torn_part_is_a_batch_that_is_lost(tmp_path: Path) -> None:
    file = RecordFile(tmp_path / "r.jsonl", Record)
    evaluation = Evaluation(
        **{
            **dict.fromkeys(Evaluation.__dataclass_fields__, ""),
            "n": 4,
            "total": 4,
            "classes": 2,
            "eps": 1.0,
            "seed": 0,
        }
    )
    one = Counts(2, 1, None, torch.tensor([True, False]), 1)
    other = Counts(2, 2, None, torch.tensor([True, True]), None)
    parts = PartialPass(file, [evaluation], 2, "cpu", ALONE)
    parts.append(1, BatchCounts([[one]], one, 3, 2), 0.5)
    parts.append(0, BatchCounts([[one]], one, 3, 2), 0.5)
    [path] = (tmp_path / "r.parts").rglob("*.jsonl")
    path.write_bytes(path.read_bytes()[:-9])
    again = PartialPass(file, [evaluation], 2, "cpu", ALONE)
    assert list(again.parts) == [1] and again.missing(4) == [range(1), range(2, 4)]
    again.append(0, BatchCounts([[other]], other, 4, 1), 0.25)
    [found], seconds = again.complete()
    assert found.correct.tolist() == [True, True, True, False]
    assert (found.n, found.top1, found.top5, found.without_gradient, seconds) == (4, 3, None, 1, 0.75)
    assert [(part.gradients, part.queries) for part in again.parts.values()] == [(3, 2), (4, 1)]
