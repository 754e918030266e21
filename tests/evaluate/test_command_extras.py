"""What ``fastadv evaluate`` offers besides tables: a plan, JSON, images as PNG, a part drawn at random, one report."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fastadv import PixelSpace, attacks, data
from fastadv.cli import main, measure_accuracy
from fastadv.cli import transfer as transfer_cli
from fastadv.evaluate import Record, Subject, Sweep, read_records
from fastadv.evaluate.all_attacks import all_attacks_table
from fastadv.evaluate.estimate import plan_passes
from fastadv.evaluate.records import packed
from fastadv.evaluate.save_images import save_images
from fastadv.evaluate.sweep import draw
from fastadv.train.checkpoint import load_model
from tests.evaluate.test_evaluate_cli import save_run

MakeRecord = Callable[..., Record]


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    return save_run(tmp_path / "standard")


@pytest.fixture
def records_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes most of a small command's time."""
    monkeypatch.setattr(measure_accuracy, "_write", lambda *_: [])


def evaluate(*arguments: str | Path) -> int:
    return main(["evaluate", *map(str, arguments), "--device", "cpu"])


# --- --limit ---------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("records_only")
def test_a_limit_draws_at_random_by_the_seed(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = (run_folder, "--attacks", "random_sign", "--eps", "2", "--limit", "30", "--out", tmp_path / "out")
    for seed in ("0", "1", "0"):
        assert evaluate(*command, "--seed", seed) == 0
        assert f"digits: 30 of the 500 test images, drawn at random with --seed {seed}" in capsys.readouterr().err
    clean = [r for r in read_records(tmp_path / "out" / "robustness.jsonl", Record) if r.attack == "clean"]
    assert [record.seed for record in clean] == [0, 1] and clean[0].images != clean[1].images
    model, test = load_model(run_folder).model, data.load("digits").test
    chosen = draw(test, 30, 1)
    with torch.no_grad():
        correct = model(PixelSpace.unit().from_pixels(chosen.images)).argmax(1) == chosen.labels
    assert clean[1].hits.tolist() == correct.tolist()


# --- --dry-run -------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("records_only")
def test_a_dry_run_measures_nothing(run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    command = [run_folder, "--attacks", "fgsm,pgd:steps=3,random_sign", "--eps", "8,16", "--limit", "20", "--out", out]
    assert evaluate(*command, "--dry-run") == 0 and not out.exists()
    shown = capsys.readouterr().out.splitlines()
    rows = [re.split(r"  +", line)[1:5] for line in shown[1:7]]
    assert rows == [
        ["clean", "0", "0", "20"],
        ["fgsm", "8, 16", "20", "40"],  # one gradient for both
        ["pgd:steps=3", "8", "60", "20"],
        ["pgd:steps=3", "16", "60", "20"],
        ["random_sign", "8", "0", "20"],
        ["random_sign", "16", "0", "20"],
    ]
    assert re.match("at most 140 gradients and 140 forward passes of single images: at most ", shown[7])
    assert shown[8].startswith("At most, since an image takes no more gradients once it is misclassified.")
    assert evaluate(*command, "--dry-run", "--no-early-stop") == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[7].startswith("140 gradients and 140 forward passes of single images: ")
    assert "at most" not in "".join(shown).lower()


@pytest.mark.usefixtures("records_only")
def test_a_dry_run_as_json(run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [run_folder, "--attacks", "fgsm", "--eps", "8,16", "--limit", "20", "--out", tmp_path / "out"]
    assert evaluate(*command, "--dry-run", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["recorded"] == 0
    assert [(one["attack"], one["eps"], one["gradients"]) for one in found["passes"]] == [
        ("clean", [0.0], 0),
        ("fgsm", [8.0, 16.0], 20),
    ]


@pytest.mark.usefixtures("records_only")
def test_what_is_recorded_costs_nothing(run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert evaluate(run_folder, "--attacks", "fgsm", "--eps", "8", "--limit", "20", "--out", out) == 0
    before = (out / "robustness.jsonl").read_bytes()
    assert evaluate(run_folder, "--attacks", "fgsm", "--eps", "8,16", "--limit", "20", "--out", out, "--dry-run") == 0
    said = capsys.readouterr().out
    assert "20 gradients and 20 forward passes" in said
    assert f"2 measurements of this command are in {out}/robustness.jsonl already." in said
    assert (out / "robustness.jsonl").read_bytes() == before


def test_the_estimate_weighs_gradients_and_knows_what_it_does_not_know(tmp_path: Path) -> None:
    (tmp_path / "own_estimate.py").write_text(
        "from fastadv.attacks import Attack\n\n\nclass Own(Attack):\n    name = 'own'\n\n"
        "    def run_(self, adv, labels, size, seed, offset):\n        pass\n"
    )
    model = load_model(save_run(tmp_path / "run")).model
    own = f"{tmp_path}/own_estimate.py:Own"
    sweep = Sweep(dataset="digits", images=data.load("digits").test, limit=50, attacks=["pgd:steps=50", own], eps=[8])
    (clean, pgd, unknown), recorded = plan_passes(sweep, [Subject("net", model, PixelSpace.unit())], None)
    assert recorded == 0 and (pgd.gradients, pgd.forwards) == (50 * 50, 50)
    assert clean.seconds is not None and pgd.seconds is not None and pgd.seconds > 10 * clean.seconds
    assert unknown.gradients is None and unknown.seconds is None and unknown.forwards == 50


# --- --json ----------------------------------------------------------------------------------------------------------


def test_json_on_standard_output(run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert evaluate(run_folder, "--attacks", "fgsm", "--eps", "8", "--limit", "20", "--out", out, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert [(r["model"], r["attack"], r["eps"], r["n"]) for r in found["records"]] == [
        ("standard", "clean", 0.0, 20),
        ("standard", "fgsm", 8.0, 20),
    ]
    assert all(Path(path).exists() for path in found["written"]) and f"{out}/robustness.jsonl" in found["written"]
    other = save_run(tmp_path / "other", seed=1)
    command = [str(run_folder), str(other), "--attacks", "fgsm", "--eps", "8", "--limit", "20", "--device", "cpu"]
    assert transfer_cli.main([*command, "--out", str(tmp_path / "transfer"), "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["records"]) == 4


# --- --save-images ---------------------------------------------------------------------------------------------------


def test_images_as_png(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = load_model(save_run(tmp_path / "run")).model
    test = data.load("digits").test
    sweep = Sweep(dataset="digits", images=test, attacks=["pgd:steps=2"], eps=[7.5], seed=3)
    save_images(sweep, [Subject("a/net", model, PixelSpace.unit())], tmp_path / "png", 5)
    clean, adv = (
        np.stack([np.asarray(Image.open(tmp_path / f"png/a-net/{kind}/{i:05}.png")) for i in range(5)])
        for kind in ("clean", "pgd-steps=2-eps-7.5")
    )  # [5, 8, 8] each
    assert (torch.from_numpy(clean)[:, None] == test.images[:5]).all()
    images = PixelSpace.unit().from_pixels(test.images[:5])
    made = attacks.create("pgd", model, eps=7.5, steps=2, seed=3)(images, test.labels[:5])
    assert (torch.from_numpy(adv)[:, None] == (255 * made).round()).all() and (adv != clean).any()
    assert not list((tmp_path / "png").rglob("*00005.png"))
    said = capsys.readouterr().err.splitlines()
    assert [line.partition(": ")[2].partition(" classifies")[0] for line in said] == ["5 images; a/net"] * 2


def test_what_rounding_costs_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A network that looks below the eighth bit: the attack's step of a quarter of a level is lost."""

    class Fine(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(()))

        def forward(self, images: torch.Tensor) -> torch.Tensor:  # [N, 1, 1, 1] -> [N, 2]
            lead = self.weight * (images.flatten(1) - 100.1)  # [N, 1]
            return torch.cat([-lead, lead], 1)

    images = data.ImageSet(
        torch.full((3, 1, 1, 1), 100, dtype=torch.uint8), torch.zeros(3, dtype=torch.int64), ("a", "b")
    )
    sweep = Sweep(dataset="made_up", images=images, attacks=["fgsm"], eps=[0.25])
    save_images(sweep, [Subject("fine", Fine(), PixelSpace.raw())], tmp_path, 3)
    said = capsys.readouterr().err.splitlines()
    assert said[0].endswith("3 images; fine classifies 3 correctly")
    assert said[1].endswith("3 images; fine classifies 0 correctly, and 3 when rounded to 8 bits")


@pytest.mark.usefixtures("records_only")
def test_the_command_writes_them(run_folder: Path, tmp_path: Path) -> None:
    command = (run_folder, "--attacks", "fgsm", "--eps", "8", "--limit", "20", "--out", tmp_path / "out")
    assert evaluate(*command, "--save-images", tmp_path / "png", "--first", "2") == 0
    assert len(list((tmp_path / "png").rglob("*.png"))) == 4


# --- fastadv report --------------------------------------------------------------------------------------------------


def test_one_report_of_all_records(run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    common = (run_folder, "--limit", "20", "--eps", "8")
    assert evaluate(*common, "--attacks", "fgsm", "--out", out / "a") == 0
    assert evaluate(*common, "--attacks", "iter_basic", "--out", out / "b") == 0
    assert evaluate(*common, "--attacks", "fgsm", "--out", out, "--seed", "1") == 0
    capsys.readouterr()
    assert main(["report", str(out)]) == 0
    page, markdown = (out / "report.html").read_text(), (out / "report.md").read_text()
    assert page.count("<svg role=") == 2 and markdown.count("\n## 20 of the 500 test images of digits, seed ") == 2
    both = (out / "tables" / "all-attacks-2.md").read_text()
    assert all(name in both for name in ("fgsm", "iter_basic", "worst case")) and "src=" not in page
    assert "worst case" not in (out / "tables" / "all-attacks.md").read_text()
    assert str(out / "report.md") in capsys.readouterr().out
    assert main(["report", str(tmp_path / "standard")]) == 2
    assert "no robustness.jsonl, transfer.jsonl or study.json" in capsys.readouterr().err


def record(make_record: MakeRecord, model: str, attack: str, eps: float, correct: list[bool]) -> Record:
    return make_record(model, attack, eps, sum(correct), n=len(correct), correct=packed(np.array(correct)))


def test_the_worst_case_is_image_by_image(make_record: MakeRecord) -> None:
    records = [
        record(make_record, "a", "clean", 0.0, [True, True, True, False]),
        record(make_record, "a", "fgsm", 4.0, [True, False, True, True]),
        record(make_record, "a", "pgd", 4.0, [False, True, True, True]),
        record(make_record, "a", "pgd", 8.0, [False, False, True, True]),
        record(make_record, "b", "clean", 0.0, [True, True, True, True]),
        record(make_record, "b", "fgsm", 4.0, [True, True, True, True]),
    ]
    table = all_attacks_table(records)
    assert table.header == ("Attack", "eps", "a", "b")
    shown = [(row[0], row[1], *(None if cell is None else cell.value for cell in row[2:])) for row in table.rows]
    assert shown == [
        ("clean", "", 0.75, 1.0),
        ("fgsm", "4", 0.75, 1.0),
        ("pgd", "4", 0.75, None),
        ("worst case", "4", 0.25, None),  # the image that is wrong when clean does not count
        ("pgd", "8", 0.5, None),  # a single attack is its own worst case
    ]


def test_no_worst_case_over_balls_of_two_norms(make_record: MakeRecord) -> None:
    in_l2 = {"norm": "l2"}
    records = [
        record(make_record, "a", "clean", 0.0, [True, True]),
        record(make_record, "a", "pgd", 8.0, [True, False]),
        replace(record(make_record, "a", "pgd:norm=l2", 8.0, [False, True]), options=in_l2),
        replace(record(make_record, "a", "mine.py:Mine:norm=l2", 8.0, [False, False]), options=in_l2),
    ]
    rows = all_attacks_table(records).rows
    assert [row[:2] for row in rows] == [
        *(("clean", ""), ("pgd", "8")),
        *(("pgd:norm=l2", "8 in L2"), ("mine.py:Mine:norm=l2", "8 in L2"), ("worst case", "8 in L2")),
    ]
