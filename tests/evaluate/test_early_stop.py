"""Evaluations that decide an image as soon as an iterate is misclassified, and those that judge the last iterate."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fastadv import PixelSpace, attacks
from fastadv.attacks import PGD
from fastadv.cli import main
from fastadv.data import ImageSet
from fastadv.evaluate import (
    Record,
    RecordFile,
    Subject,
    Sweep,
    TransferRecord,
    evaluate,
    evaluate_each,
    read_records,
    robustness_tables,
    run,
    run_transfer,
)
from fastadv.evaluate.all_attacks import all_attacks_table
from fastadv.evaluate.attack_specs import may_stop_early, stops_early, takes_early_stop
from fastadv.evaluate.figures import with_top5
from fastadv.evaluate.folder import describe_left_out, select_comparable
from fastadv.evaluate.save_images import save_images
from fastadv.evaluate.tables import to_markdown
from tests.evaluate.test_evaluate_cli import save_run

MakeRecord = Callable[..., Record]
RAW = PixelSpace.raw()


class Band(nn.Module):
    """Class 0, but class 1 for images whose pixel is between 129.5 and 131.5: a path may lead through."""

    def forward(self, images: Tensor) -> Tensor:  # [N, 1, 1, 1] -> [N, 6]
        other = 1 - (images.flatten() - 130.5).abs()  # [N]
        rest = torch.full((len(images), 4), -99.0) + images.flatten()[:, None]
        return torch.cat([0 * images.flatten(1), other[:, None], rest - 255], dim=1)


class Up(PGD):
    """Steps upwards by 2, whatever the gradient is."""

    name = "up"

    def step_(self, adv: Tensor, clean: Tensor, grad: Tensor, alpha: Any, eps: Any) -> None:
        adv.add_(2)


def pixels(*values: float) -> tuple[Tensor, Tensor]:
    """Images of one pixel each, of class 0."""
    return torch.tensor(values, dtype=torch.float32).view(-1, 1, 1, 1), torch.zeros(len(values), dtype=torch.int64)


UP: dict[str, Any] = {"attack": Up, "eps": 8, "steps": 3, "random_start": False, "space": RAW}
PATHS = pixels(100, 126, 124, 128, 130)  # outside; through the band; into the band; from beside it; from within it
ANY_ITERATE, LAST = [True, False, False, False, False], [True, True, False, True, True]


def test_an_iterate_that_is_misclassified_decides() -> None:
    by_any, by_last = evaluate(Band(), [PATHS], **UP), evaluate(Band(), [PATHS], **UP, early_stop=False)
    assert by_any.correct.tolist() == ANY_ITERATE
    assert by_last.correct.tolist() == LAST
    assert (by_any.top1, by_last.top1, by_any.top5) == (1, 4, None) and by_last.top5 is not None
    [each] = evaluate_each(Band(), [PATHS], **{**UP, "eps": [8]})
    [each_last] = evaluate_each(Band(), [PATHS], **{**UP, "eps": [8]}, early_stop=False)
    assert (each.correct.tolist(), each_last.correct.tolist()) == (ANY_ITERATE, LAST)


def test_what_is_said_of_one_attack_counts() -> None:
    assert evaluate(Band(), [PATHS], **{**UP, "attack": "tests.evaluate.test_early_stop:Up:early_stop=false"}).top1 == 4
    created = Up(Band(), eps=8, steps=3, random_start=False, space=RAW)
    assert evaluate(Band(), [PATHS], attack=created, space=RAW).correct.tolist() == LAST
    stopping = Up(Band(), eps=8, steps=3, random_start=False, space=RAW, early_stop=True)
    for early_stop in (True, False):
        found = evaluate(Band(), [PATHS], attack=stopping, space=RAW, early_stop=early_stop)
        assert found.correct.tolist() == ANY_ITERATE and found.top5 is None


class OwnRun(PGD):
    name = "own_run"

    def run_(self, adv: Tensor, labels: Tensor | None, *_: Any) -> None:
        adv.add_(0.25)


@pytest.mark.parametrize(
    ("attack", "takes", "stops"),
    [
        ("pgd", True, True),
        ("iter_ll", True, True),
        ("fgsm", False, False),
        ("random_sign", False, False),
        ("apgd_ce", False, True),
        ("fab_t", False, True),
        ("square", False, True),
        ("autoattack", False, True),
        (Up, True, True),
    ],
)
def test_which_attacks_follow_the_option(attack: Any, takes: bool, stops: bool) -> None:
    kind = attacks.get(attack) if isinstance(attack, str) else attack
    assert takes_early_stop(kind) is takes
    assert stops_early(kind, {"early_stop": True}) is stops
    assert stops_early(kind, {}) is (stops and not takes)
    assert may_stop_early(attack if isinstance(attack, str) else "own.py:Up") is (takes and isinstance(attack, str))


def test_a_run_of_ones_own_takes_all_of_its_steps() -> None:
    assert not takes_early_stop(OwnRun)
    found = evaluate(Band(), [PATHS], **{**UP, "attack": OwnRun})
    assert found.top5 is not None and found.correct.tolist() == [True] * 4 + [False]


LENGTHS = {
    "pgd": {"steps": 2},
    "apgd_ce": {"steps": 2},
    "fab": {"steps": 2},
    "square": {"queries": 3},
    "autoattack": {"steps": 2, "queries": 3},
}


@pytest.mark.parametrize("attack", [*LENGTHS, "fgsm", "random_sign"])
def test_top_5_is_left_out_where_images_leave_at_top_1(attack: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 8))
    images, labels = torch.rand(6, 1, 4, 4), torch.arange(6)
    options = LENGTHS.get(attack, {})
    counts = evaluate(model, [(images, labels)], attack=attack, eps=8, space=PixelSpace.unit(), **options)
    assert (counts.top5 is None) is (attack in LENGTHS)
    text = ":".join([attack, *(f"{name}={value}" for name, value in options.items())])
    several = evaluate(model, [(images, labels)], attack=["fgsm:bn=eval", text], eps=8, space=PixelSpace.unit())
    assert (several.worst.top5 is None) is (attack in LENGTHS) and several.each["clean"].top5 is not None


def test_images_that_leave_between_restarts_have_no_top_5() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 8))
    images, labels = torch.rand(6, 1, 4, 4), torch.arange(6)
    given = {"attack": "pgd", "steps": 2, "eps": 8.0, "space": PixelSpace.unit(), "early_stop": False}
    assert evaluate(model, [(images, labels)], **given).top5 is not None
    assert evaluate(model, [(images, labels)], restarts=2, **given).top5 is None
    one_step = {"attack": "step_rnd", "eps": 8.0, "space": PixelSpace.unit()}
    assert evaluate(model, [(images, labels)], **one_step).top5 is not None
    assert evaluate(model, [(images, labels)], restarts=2, **one_step).top5 is None
    assert stops_early(attacks.get("step_rnd"), {"restarts": 2})
    assert stops_early(attacks.get("pgd"), {"restarts": 2}) and not stops_early(attacks.get("pgd"), {"restarts": 1})


# --- records ---------------------------------------------------------------------------------------------------------

TEXT = "tests.evaluate.test_early_stop:Up:steps=3:random_start=false"


def sweep(**given: Any) -> Sweep:
    values = torch.tensor([100, 126, 124, 128, 130], dtype=torch.uint8)
    images = ImageSet(values.view(-1, 1, 1, 1), torch.zeros(5, dtype=torch.int64), tuple("abcdef"))
    return Sweep(**{"dataset": "made_up", "images": images, "attacks": [TEXT], "eps": [8], "batch_size": 2, **given})


def test_records_of_both_kinds_stay_apart(tmp_path: Path) -> None:
    """Neither is found in place of the other, and both say which they are."""
    path, subject = tmp_path / "robustness.jsonl", Subject("band", Band(), RAW)
    for early_stop, hits in ((True, ANY_ITERATE), (False, LAST), (True, ANY_ITERATE)):
        clean, record = run(sweep(early_stop=early_stop), [subject], RecordFile(path, Record))
        assert record.hits.tolist() == hits
        assert (record.stops_early, record.top5 is None, clean.stops_early) == (early_stop, early_stop, False)
        assert record.options.get("early_stop", False) is early_stop
    kept = read_records(path, Record)
    assert [(r.attack == "clean", r.stops_early) for r in kept] == [(True, False), (False, True), (False, False)]


def test_attacks_with_one_iterate_have_one_record(tmp_path: Path) -> None:
    path, subject = tmp_path / "robustness.jsonl", Subject("band", Band(), RAW)
    attacks_of = ["fgsm", "random_sign", "apgd_ce:steps=2"]
    first = run(sweep(attacks=attacks_of, early_stop=True), [subject], RecordFile(path, Record))
    assert run(sweep(attacks=attacks_of), [subject], RecordFile(path, Record)) == first
    assert [record.stops_early for record in first] == [False, False, False, True]


def test_records_of_before(make_record: MakeRecord) -> None:
    """Without the field it was the last iterate, but for attacks that have always stopped."""
    assert not make_record("a", "pgd:steps=3", 8, 100, 200).stops_early
    assert make_record("a", "pgd:steps=3", 8, 100, 200).top5 == 200
    for attack in ("autoattack", "apgd_t:steps=3", "fab", "square"):
        record = make_record("a", attack, 8, 100, 200)
        assert record.stops_early and record.any_iterate and record.top5 is None
    between = make_record("a", "pgd:restarts=3", 8, 100, 200, options={"restarts": 3})
    assert between.stops_early and between.top5 is None and not between.any_iterate


def test_restarts_without_early_stop_judge_the_last_iterates(make_record: MakeRecord) -> None:
    """Images leave between runs, so they stop early, but no iterate within a run decides."""
    options: dict[str, Any] = {"restarts": 3}
    clean, pgd = make_record("a", "clean", 0, 900), make_record("a", "pgd", 8, 150, 200)
    last = make_record("a", "pgd:restarts=3", 8, 100, options=options, stops_early=True)
    by_any = make_record("a", "pgd:restarts=3", 4, 90, options={**options, "early_stop": True}, stops_early=True)
    assert (last.any_iterate, by_any.any_iterate) == (False, True)
    assert select_comparable([last], [clean, pgd, last, by_any]) == ([last, clean, pgd], [by_any])
    assert "Under pgd, pgd:restarts=3, the last iterate alone counts." in all_attacks_table([clean, pgd, last]).notes
    assert "iterate" not in to_markdown(robustness_tables([clean, last])["pgd:restarts=3"])


def test_tables_say_it(make_record: MakeRecord) -> None:
    records = [make_record("a", "clean", 0, 900, 990)]
    stopping = [make_record("a", "pgd", eps, 100, options={"early_stop": True}, stops_early=True) for eps in (4, 8)]
    table = robustness_tables([*records, *stopping])["pgd"]
    shown = to_markdown(table)
    assert [[cell is None for cell in row[2:]] for row in table.rows] == [[False] * 3, [False, True, True]]
    assert "An image counts as misclassified as soon as one iterate of the attack is" in shown
    assert "Top 5 is left out under pgd: an image is left alone as soon as top 1 is wrong." in shown
    assert "fewer than six" not in shown and "early_stop" not in shown
    last = to_markdown(robustness_tables([*records, make_record("a", "pgd", 8, 100, 200)])["pgd"])
    assert "iterate" not in last and "left out" not in last
    assert with_top5([*records, *stopping]) == []
    fgsm = make_record("a", "fgsm", 8, 100, 200)
    assert with_top5([*records, *stopping, fgsm]) == [*records, fgsm]


def test_a_folder_does_not_mix_them(make_record: MakeRecord) -> None:
    clean = make_record("a", "clean", 0, 900)
    old = [make_record("a", "pgd", 4, 200), make_record("a", "iter_ll", 8, 200)]
    either = [make_record("a", "fgsm", 8, 150), make_record("a", "autoattack", 8, 10)]
    now = [clean, make_record("a", "pgd", 8, 100, options={"early_stop": True}, stops_early=True)]
    shown, left_out = select_comparable(now, [*old, *either, *now])
    assert shown == [*now, *either] and left_out == old
    assert describe_left_out(now[1], left_out) == [
        "2 measurements judged by the last iterate of an attack (this command: by any iterate)"
    ]
    own = [
        make_record("a", "own.py:A", eps, 9, options={"early_stop": stop}, stops_early=stop)
        for eps, stop in ((4, False), (8, True))
    ]
    assert select_comparable(own[1:], own) == (own[1:], own[:1])


def test_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_folder, out = save_run(tmp_path / "standard"), tmp_path / "out"
    command = ["evaluate", str(run_folder), "--attacks", "pgd:steps=3", "--limit", "40", "--device", "cpu"]
    assert main([*command, "--eps", "8", "--out", str(out)]) == 0
    said = capsys.readouterr()
    assert "Top 5 is left out under pgd:steps=3" in " ".join(said.out.split())
    assert not list(out.glob("figures/*top5*")) and list(out.glob("figures/*top1*"))
    assert main([*command, "--eps", "4", "--no-early-stop", "--out", str(out)]) == 0
    said = capsys.readouterr()
    assert "1 measurement judged by any iterate of an attack (this command: by the last iterate)" in said.err
    records = read_records(out / "robustness.jsonl", Record)
    assert [(r.eps, r.stops_early) for r in records] == [(0.0, False), (8.0, True), (4.0, False)]
    assert (out / "tables/robustness-pgd-steps=3.csv").read_text().count("eps = 8") == 0

    # The report has a part for each way of judging, with the clean accuracy in both.
    assert main(["report", str(out)]) == 0
    last, any_counts = (out / "report.md").read_text().split("\n## ")[1:]
    assert "judged by the last iterate\n" in last and "Under pgd:steps=3, the last iterate alone counts." in last
    assert "last iterate" not in any_counts and "misclassified as soon as one iterate is" in any_counts
    assert all("| clean |  | -" not in part for part in (last, any_counts))


def test_saved_images_are_those_that_were_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The image at 126 stays where it was misclassified first."""
    save_images(sweep(early_stop=True), [Subject("band", Band(), RAW)], tmp_path, 5)
    save_images(sweep(), [Subject("band", Band(), RAW)], tmp_path, 5)
    said = [line.partition("classifies ")[2] for line in capsys.readouterr().err.splitlines() if "Up" in line]
    assert said == ["1 correctly", "4 correctly"]


@pytest.mark.parametrize("given", [{"early_stop": True}, {"attacks": [f"{TEXT}:early_stop=true"]}])
def test_transfer_takes_all_steps(given: dict[str, Any], tmp_path: Path) -> None:
    file = RecordFile(tmp_path / "transfer.jsonl", TransferRecord)
    with pytest.raises(ValueError, match="images for other networks take all steps of an attack: leave out early_stop"):
        run_transfer(sweep(**given), [Subject("band", Band(), RAW)], file)


def test_transfer_of_attacks_that_stop_has_no_top_5(tmp_path: Path) -> None:
    file = RecordFile(tmp_path / "transfer.jsonl", TransferRecord)
    records = run_transfer(sweep(attacks=["apgd_ce:steps=2", "fgsm"]), [Subject("band", Band(), RAW)], file)
    assert [record.top5 is None for record in records] == [True, False]
    assert read_records(file.path, TransferRecord) == records
