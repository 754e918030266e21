"""What a progress bar counts, and what is said where there is none."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from fastadv import PixelSpace, attacks
from fastadv.data import ImageSet
from fastadv.evaluate import (
    LeakRecord,
    Record,
    RecordFile,
    Subject,
    Sweep,
    TransferRecord,
    run,
    run_leaking,
    run_transfer,
)
from fastadv.evaluate.effort import generation_passes
from fastadv.utils import progress
from fastadv.utils.progress import show_progress
from tests.attacks.gradients import GRADIENTS

SUBJECTS = [Subject(name, nn.Sequential(nn.Flatten(), nn.Linear(4, 6)), PixelSpace.unit()) for name in ("one", "other")]
IMAGES = ImageSet(torch.zeros(10, 1, 2, 2, dtype=torch.uint8), torch.arange(10) % 6, tuple("abcdef"))


@pytest.mark.parametrize(
    ("attack", "options", "eps", "passes"),
    [
        ("clean", {}, [0], 0),
        ("fgsm", {}, [2, 4, 8], 2.5),  # one gradient for all sizes
        ("iter_ll", {}, [16], 2.5 * 20),
        ("iter_ll", {"steps": 7}, [16], 2.5 * 7),
        ("pgd:steps=3", {"steps": 3}, [16], 2.5 * 3),
        ("pgd", {}, [4, 8], 2.5 * 20),
        ("random_sign", {}, [16], 0),
        ("fab_t", {"steps": 2, "target_classes": 3}, [4, 8], 2 * (2.5 * 6 + 7)),  # each step looks, too; so at first
        ("apgd_t", {"steps": 3, "target_classes": 2, "restarts": 5}, [16], 2.5 * 30 + 11),
        ("square", {"queries": 10, "restarts": 2}, [16], 21),
    ],
)
def test_passes_by_hand(attack: str, options: dict[str, Any], eps: list[float], passes: float) -> None:
    assert generation_passes(SUBJECTS[0].model, SUBJECTS[0].space, attack, options, eps) == passes


@pytest.mark.parametrize("name", GRADIENTS)
def test_as_many_gradients_as_the_model_is_asked_for(name: str) -> None:
    """The model is called once for each, and not for anything else."""
    calls = []
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 6))
    model.register_forward_hook(lambda *_: calls.append(1))
    attack = attacks.create(name, model, eps=8)
    attack(torch.rand(2, 1, 2, 2), torch.zeros(2, dtype=torch.int64))
    assert attack.gradients(8.0) == len(calls)


class Shown:
    """In the place of a bar: what it was told."""

    def __init__(self, total: float, shown: bool = True) -> None:
        self.total, self.done = total, 0.0
        self.by_lines = False

    def __enter__(self) -> Shown:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def begin(self, what: str) -> None:
        pass

    def advance(self, amount: float) -> None:
        self.done += amount

    def find(self, found: str) -> None:
        self.found = found

    def expect(self, left: float) -> None:
        self.total = self.done + left


@pytest.mark.parametrize("what", ["sweep", "transfer", "label_leaking"])
def test_the_bar_ends_at_its_end(what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever has been measured before: the clean images are a fortieth of an iterative attack, and not a half."""
    seen: list[Shown] = []

    def shown(total: float, **given: bool) -> Shown:
        seen.append(Shown(total))
        return seen[-1]

    monkeypatch.setattr("fastadv.evaluate.measuring.show_progress", shown)
    for eps in ([16.0], [16.0, 4.0]):
        given = Sweep(dataset="x", images=IMAGES, attacks=["iter_basic", "step_ll"], eps=eps, batch_size=4)
        if what == "sweep":
            run(given, SUBJECTS, RecordFile(tmp_path / "r.jsonl", Record))
        elif what == "transfer":
            run_transfer(given, SUBJECTS, RecordFile(tmp_path / "t.jsonl", TransferRecord))
        else:
            run_leaking(given, [("fgsm", "fgsm_pred")], SUBJECTS, RecordFile(tmp_path / "l.jsonl", LeakRecord))
    assert [one.total for one in seen] == [one.done for one in seen]
    totals = {"sweep": [2 * 10 * (1 + 51 + 3.5), 2 * 10 * (13.5 + 3.5)]}
    assert [one.total for one in seen] == totals.get(what, [one.total for one in seen]) and seen[0].total > 0


def test_a_line_now_and_then_where_there_is_no_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = itertools.count(0, 10)  # seconds, at each look
    monkeypatch.setattr(progress, "monotonic", lambda: next(clock))
    with show_progress(10) as work:
        work.begin("m: pgd eps = 8")
        for _ in range(10):
            work.advance(1)
    assert capsys.readouterr().err.splitlines() == [
        "30 % done, 70 s left: m: pgd eps = 8",
        "60 % done, 40 s left: m: pgd eps = 8",
        "90 % done, 10 s left: m: pgd eps = 8",
    ]


def test_another_process_says_nothing(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "LINE_INTERVAL_S", 0.0)
    with show_progress(10, shown=False) as work:
        work.advance(1)
    assert capsys.readouterr().err == ""
