"""What an evaluation shows while it runs: decided and left images, and a time left that weighs gradients."""

from __future__ import annotations

import io
import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor, nn

from fastadv import PixelSpace
from fastadv.data import ImageSet
from fastadv.evaluate import Record, RecordFile, Subject, Sweep, evaluate, run
from fastadv.evaluate.pass_progress import PassProgress
from fastadv.utils import progress
from tests.evaluate.test_effort import Shown

UNIT = PixelSpace.unit()


class Told(Shown):
    """In the place of a bar: what it was told."""

    def __init__(self, total: float) -> None:
        super().__init__(total)
        self.found = ""


def test_the_work_that_is_left_by_hand() -> None:
    """40 images, each 10 passes at most; then 40 more by an attack that stops early, and 40 by one that does not."""
    bar = Told(total=40 * 10 + 40 * 10 + 40 * 3)
    one = PassProgress(bar, 40, 10, [(400, True), (120, False)])  # type: ignore[arg-type]
    one(10, spent=20, decided=9)  # a fifth of what it could have cost
    assert (bar.done, bar.found) == (20, "9 decided, 30 left")
    assert bar.total == pytest.approx(20 + 30 * 2 + 400 / 5 + 120)
    one(30, spent=180, decided=0)  # 200 of 400 in all
    assert (bar.done, bar.found) == (200, "9 decided, 0 left")
    assert bar.total == pytest.approx(200 + 400 / 2 + 120) and one.spent_share == 0.5


def test_a_pass_that_is_resumed_has_less_left() -> None:
    bar = Told(total=400)
    one = PassProgress(bar, 40, 10, [])  # type: ignore[arg-type]
    one.resume(8, decided=5)
    assert (bar.done, bar.total, bar.found) == (0, 80, "5 decided, 8 left")
    one(8, decided=8)
    assert (bar.done, bar.total, bar.found) == (80, 80, "13 decided, 0 left")


def networks_that_differ() -> tuple[nn.Module, ImageSet]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 6))
    pixels = torch.randint(0, 256, (40, 1, 4, 4), dtype=torch.uint8)
    return model, ImageSet(pixels, model(UNIT.from_pixels(pixels)).argmax(dim=1), tuple("abcdef"))


@pytest.mark.parametrize("attack", ["pgd:steps=10", "apgd_ce:steps=10", "square:queries=20", "fgsm"])
def test_the_bar_is_told_of_the_gradients_that_were_computed(
    attack: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the end it is at its end; and where images leave, sooner than was to be feared."""
    model, images = networks_that_differ()
    seen: list[Told] = []

    def shown(total: float, **_: bool) -> Told:
        seen.append(Told(total))
        return seen[-1]

    monkeypatch.setattr("fastadv.evaluate.measuring.show_progress", shown)
    given = Sweep(dataset="x", images=images, attacks=[attack], eps=[8], batch_size=8, early_stop=True)
    most = 0.0
    for early_stop in (False, True):
        file = RecordFile(tmp_path / f"{early_stop}.jsonl", Record)
        sweep = Sweep(**{**vars(given), "early_stop": early_stop})
        record = run(sweep, [Subject("a", model, UNIT)], file)[-1]
        assert seen[-1].done == pytest.approx(seen[-1].total)
        assert seen[-1].found == f"{40 - record.top1} decided, 0 left"
        most = max(most, seen[-1].done)
    assert 0 < record.top1 < 40
    assert (seen[-1].done < seen[0].done) is (attack == "pgd:steps=10")


class Slow(nn.Module):
    """Each call takes a second, by the clock of the progress."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.now = 0.0

    def forward(self, images: Tensor) -> Tensor:
        self.now += 1
        return self.model(images)


def test_lines_where_there_is_no_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model, images = networks_that_differ()
    slow = Slow(model)
    monkeypatch.setattr(progress, "monotonic", lambda: slow.now)
    sweep = Sweep(dataset="x", images=images, attacks=["pgd:steps=20"], eps=[4], batch_size=8, early_stop=True)
    run(sweep, [Subject("net", slow, UNIT)], RecordFile(tmp_path / "r.jsonl", Record))
    lines = capsys.readouterr().err.splitlines()
    between = [line for line in lines if "% done" in line]
    assert len(between) >= 2 and all(line.count("net: pgd:steps=20 eps = 4; ") == 1 for line in between)
    assert [line.rpartition(", ")[2] for line in between] == [
        left for left in ("24 left", "16 left", "8 left") if any(left in line for line in between)
    ]
    assert "\r" not in "".join(lines) and "\x1b" not in "".join(lines)


@pytest.mark.parametrize("width", [60, 80, 120])
def test_one_line_on_a_terminal(width: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The name is cut where there is no room, and nothing else."""
    terminal = Console(file=io.StringIO(), force_terminal=True, width=width, color_system=None)
    monkeypatch.setattr("rich.console.Console", lambda **_: terminal)
    with progress.show_progress(100) as work:
        work.begin("A network with a long name: apgd_ce:steps=100:restarts=5:norm=l2 eps = 127.5")
        work.advance(50)
        work.find("12,345 decided, 54,321 left")
        assert not work.by_lines
    shown = terminal.file.getvalue()  # type: ignore[attr-defined]
    last = next(line for line in reversed(shown.splitlines()) if "decided" in line)
    assert "50%" in last and "12,345 decided, 54,321 left" in last and "A n" in last
    assert shown.count("\n") == 1


def test_what_is_left_can_shrink_without_losing_the_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Console(file=io.StringIO(), force_terminal=True, width=100)
    monkeypatch.setattr("rich.console.Console", lambda **_: terminal)
    with progress.show_progress(1000) as work:
        clock = itertools.count(0.0, 1.0)
        work._bar.get_time = lambda: next(clock)  # type: ignore[method-assign]
        for _ in range(5):
            work.advance(10)
        before = work._bar.tasks[0].speed
        work.expect(50)
        assert before is not None and work._bar.tasks[0].speed == before
        assert work._bar.tasks[0].total == 100


def test_python_shows_how_many_images_are_decided(monkeypatch: pytest.MonkeyPatch) -> None:
    model, images = networks_that_differ()
    terminal = Console(file=io.StringIO(), force_terminal=True, width=120, color_system=None)
    monkeypatch.setattr("rich.console.Console", lambda **_: terminal)
    batches: list[Any] = [(UNIT.from_pixels(images.images), images.labels)]
    found = evaluate(model, batches, attack=["fgsm", "pgd:steps=3"], eps=8, space=UNIT, progress=True)
    shown = terminal.file.getvalue()  # type: ignore[attr-defined]
    assert f"{40 - found.worst.top1} of 40 images decided" in shown
