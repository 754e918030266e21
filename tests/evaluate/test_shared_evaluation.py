"""Several processes share an evaluation: each counts some of the batches that one alone would make."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from fastadv.cli import evaluate as evaluate_cli
from fastadv.cli import measure_accuracy
from fastadv.distributed import ALONE, Processes
from fastadv.evaluate import Record, read_records
from tests.evaluate.test_evaluate_cli import save_run
from tests.train import runs
from tests.train.group import Raised, succeeded, together

GIVEN = {"attacks": ["step_rnd", "random_normal", "iter_ll:steps=2", "pgd:steps=2"], "eps": [8, 32], "batch_size": 7}


def records_of(folder: Path) -> list[Record]:
    found = read_records(folder / "robustness.jsonl", Record)
    return [replace(record, seconds=0.0, versions={}) for record in found]


@pytest.mark.parametrize(
    ("world_size", "n"),
    [
        (2, 61),  # 9 batches, the last of 5
        (3, 61),
        (3, 14),  # 2 batches: one process has nothing to do
    ],
)
def test_counts_are_those_of_one_process(world_size: int, n: int, tmp_path: Path) -> None:
    (alone,) = succeeded(together(1, runs.evaluated, tmp_path / "alone", n, GIVEN))
    assert len(alone) == 9 and len({(record.top1, record.top5) for record in alone}) > 2
    assert {record.n for record in alone} == {n}
    shared = succeeded(together(world_size, runs.evaluated, tmp_path / "shared", n, GIVEN))
    assert shared == [alone] * world_size
    assert records_of(tmp_path / "shared") == alone  # each was written once


def test_what_is_recorded_is_not_measured_again(tmp_path: Path) -> None:
    first = {**GIVEN, "attacks": ["step_rnd"]}
    succeeded(together(2, runs.evaluated, tmp_path, 20, first))
    succeeded(together(3, runs.evaluated, tmp_path, 20, {**first, "eps": [8, 16, 32]}))
    assert [record.eps for record in records_of(tmp_path)] == [0.0, 8.0, 32.0, 16.0]


@pytest.mark.parametrize(
    ("fault", "rank", "kind", "text"),
    [
        ("other weights", 0, "ValueError", "process 1 reads other models or images than process 0: all need the same"),
        ("full disk", 0, "OSError", "No space left"),
        ("one process", 1, "TypeError", "not callable"),
    ],
)
def test_a_failure_is_one_of_all(fault: str, rank: int, kind: str, text: str, tmp_path: Path) -> None:
    results = together(2, runs.evaluated, tmp_path, 20, GIVEN, fault)
    assert all(isinstance(result, Raised) for result in results)
    assert results[rank].kind == kind and text in results[rank].text
    assert results[1 - rank].kind == "FailedElsewhere"


def test_under_torchrun(tmp_path: Path) -> None:
    """Each record, table and line comes once."""
    run, out = save_run(tmp_path / "standard"), tmp_path / "out"
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "fastadv"]
    options = ["--attacks", "step_rnd", "--eps", "8", "--limit", "20", "--batch-size", "3", "--device", "cpu"]
    command = [*launch, "evaluate", str(run), *options, "--out", str(out)]
    done = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Accuracy on step_rnd") == done.stdout.count("written:") == 1
    assert done.stderr.count("2/2  standard: step_rnd eps = 8: top 1") == 1
    assert [record.attack for record in records_of(out)] == ["clean", "step_rnd"]


def test_download_is_for_one_process(tmp_path: Path) -> None:
    arguments = evaluate_cli._parser().parse_args([str(save_run(tmp_path / "standard")), "--download"])
    with pytest.warns(UserWarning, match="digits is part of scikit-learn"):
        measure_accuracy._prepare(arguments, ALONE)
    with pytest.raises(ValueError, match="--download is for one process: run the command once without torchrun"):
        measure_accuracy._prepare(arguments, Processes(rank=0, world_size=2))
