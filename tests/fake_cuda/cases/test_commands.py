"""The commands on a GPU count what they count on the CPU."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastadv import cli
from fastadv.evaluate import Record, TransferRecord, read_records
from tests.evaluate.test_evaluate_cli import save_run
from tests.study.conftest import scale  # noqa: F401  a fixture

DEVICES = ("cpu", "auto")


def command(*arguments: str | Path) -> None:
    assert cli.main([*map(str, arguments)]) == 0


@pytest.mark.parametrize("options", ["", "--fast"], ids=["as it is", "fast"])
def test_evaluate(tmp_path: Path, options: str) -> None:
    run = save_run(tmp_path / "run")
    found = []
    for device in DEVICES:
        out = tmp_path / device.replace(":", "")
        command(
            *("evaluate", run, "--attacks", "step_ll,iter_ll,pgd", "--eps", "4", "--limit", "20", "--out", out),
            *("--device", device, *options.split()),
        )
        found.append([(r.attack, r.top1, r.top5, r.correct) for r in read_records(out / "robustness.jsonl", Record)])
    assert found[0] == found[1]


def test_transfer(tmp_path: Path) -> None:
    runs = [save_run(tmp_path / f"run{seed}", seed=seed) for seed in range(2)]
    found = []
    for device in DEVICES:
        out = tmp_path / device.replace(":", "")
        command("transfer", *runs, "--eps", "8", "--limit", "20", "--out", out, "--device", device)
        records = read_records(out / "transfer.jsonl", TransferRecord)
        found.append([(r.source, r.target, r.attack, r.top1, r.top5) for r in records])
    assert found[0] == found[1]


@pytest.mark.usefixtures("scale")
def test_a_study(tmp_path: Path) -> None:
    found = []
    for device in DEVICES:
        out = tmp_path / device.replace(":", "")
        command("study", "delay", "--out", out, "--device", device)
        found.append([(r.key, r.top1) for r in read_records(out / "records" / "robustness.jsonl", Record)])
    assert found[0] == found[1]
