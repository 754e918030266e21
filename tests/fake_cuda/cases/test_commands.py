"""The commands on a GPU count what they count on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from fastadv import cli
from fastadv.evaluate import Record, TransferRecord, read_records
from fastadv.train import Trainer, checkpoint
from tests.evaluate.test_evaluate_cli import save_run
from tests.study.conftest import scale  # noqa: F401  a fixture
from tests.train.conftest import few_digits  # noqa: F401  a fixture

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


SETTINGS = ("--cudnn-benchmark", "--tf32")


def of_the_gpu() -> tuple[bool, str]:
    return torch.backends.cudnn.benchmark, torch.get_float32_matmul_precision()


def test_settings_of_an_evaluation_are_recorded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, before = save_run(tmp_path / "run"), of_the_gpu()
    for options in ((), SETTINGS):
        out = tmp_path / f"with {len(options)}"
        command("evaluate", run, "--attacks", "fgsm", "--eps", "4", "--limit", "20", "--out", out, *options)
        for record in read_records(out / "robustness.jsonl", Record):
            assert {name for name in record.versions if name in ("cudnn_benchmark", "tf32")} == {
                option[2:].replace("-", "_") for option in options
            }
        said = "cudnn_benchmark and tf32: on for this run on cuda:0"
        assert (said in capsys.readouterr().err) is bool(options)
        assert of_the_gpu() == before


@pytest.mark.usefixtures("few_digits")
def test_settings_of_a_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """They hold while it runs, are in its configuration, and are put back."""
    before, held = of_the_gpu(), []
    step = Trainer.train_step
    monkeypatch.setattr(Trainer, "train_step", lambda *given: held.append(of_the_gpu()) or step(*given))
    command("train", "--out", tmp_path / "run", "--epochs", "1", "--model.options.width", "0.25", *SETTINGS)
    assert set(held) == {(True, "high")} and of_the_gpu() == before == (False, "highest")
    config = checkpoint.load_config(checkpoint.resolve(tmp_path / "run"))
    assert config.cudnn_benchmark and config.tf32
    assert "cudnn_benchmark and tf32: on for this run on cuda:0" in capsys.readouterr().err


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
    """The same counts; the weights may differ in their last bits, because a GPU takes the fused optimiser."""
    found = []
    for device in DEVICES:
        out = tmp_path / device.replace(":", "")
        command("study", "delay", "--out", out, "--device", device)
        records = read_records(out / "records" / "robustness.jsonl", Record)
        found.append([(r.attack, r.eps, r.n, r.top1) for r in records])
    assert found[0] == found[1]
