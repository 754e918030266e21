"""The robustness card: its numbers are those of the records, its page shows them, and CI can fail on them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fastadv import PixelSpace, attacks
from fastadv.attacks.base import ball_of
from fastadv.cli import main, measure_card, names
from fastadv.data import ImageSet
from fastadv.evaluate import Card, Record, RecordFile, Subject, Sweep, read_records, robustness_card, write_card
from fastadv.evaluate.attack_specs import attack_class, parse_attack
from fastadv.evaluate.card.anytime import anytime_interval, is_within
from fastadv.evaluate.card.page import content, warning_lines
from fastadv.evaluate.card.suites import SUITES
from fastadv.evaluate.card.tables import accuracy_table, asked_for
from fastadv.evaluate.card.until import draw_order, measure_until, select
from fastadv.evaluate.checks import Finding
from fastadv.evaluate.records import packed
from fastadv.evaluate.sweep import draw
from tests.evaluate.test_evaluate_cli import save_run

UNIT = PixelSpace.unit()


class Brightness(nn.Module):
    """Class 1 for images whose mean is above the threshold: a margin that is known for each image."""

    def __init__(self, threshold: float = 0.5) -> None:
        super().__init__()
        self.threshold = nn.Parameter(torch.tensor(threshold))

    def forward(self, images: Tensor) -> Tensor:
        margin = images.mean(dim=(1, 2, 3)) - self.threshold  # [N]
        return torch.stack([-margin, margin], dim=1)


def shades(n: int) -> tuple[Tensor, Tensor]:
    """Flat images from black to white, and their classes: each is fooled by eps above its distance to the middle."""
    levels = torch.linspace(0, 255, n).round() / 255  # [n]
    return levels[:, None, None, None].expand(n, 1, 6, 6).contiguous(), (levels > 0.5).long()


@pytest.fixture(scope="module")
def card() -> Card:
    images, labels = shades(40)
    batches = list(zip(images.split(16), labels.split(16), strict=True))
    return robustness_card(Brightness(), batches, space=UNIT, eps=[64, 16], examples=2, name="a|b <net>")


def test_the_worst_case_is_what_the_margins_say(card: Card) -> None:
    images, _ = shades(40)
    for eps in (16, 64):
        safe = int(((255 * images[:, 0, 0, 0] - 127.5).abs() > eps).sum())
        assert round(40 * card.worst_case("a|b <net>", eps).value) == safe
    assert card.sizes == [16.0, 64.0] and card.attacks == list(SUITES["quick"])
    assert card.lowest()[:2] == ("a|b <net>", 64.0)


def record(attack: str, eps: float, hits: list[bool], **more: Any) -> Record:
    own = {"dataset": "d", "split": "test", "images": "i", "n": len(hits), "total": len(hits), "classes": 2, "seed": 0}
    found = {"top1": sum(hits), "top5": None, "correct": packed(np.array(hits)), "seconds": 1.5, "device": "cpu"}
    named = {"model": "m", "checkpoint": "c", "space": "s", "attack": attack, "eps": eps, "options": {}, "versions": {}}
    return Record(**{**own, **found, **named, **more})


def test_all_together_is_image_by_image() -> None:
    records = [
        record("clean", 0.0, [True, True, True, False]),
        record("fgsm", 2.0, [False, True, True, True]),
        record("pgd", 2.0, [True, False, True, False]),
        record("pgd", 4.0, [False, False, False, False]),
    ]
    card = Card("quick", records, {"m": []}, 4, 0.0)
    assert card.worst_case("m", 2.0).value == 0.25
    assert card.worst_case("m", 4.0).value == 0.0


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda card: card.worst_case("m", 3.0), "eps must be one that was measured, 2, 4, got 3"),
        (lambda card: card.worst_case("n", 2.0), "model must be one of m, got 'n'"),
        (lambda card: card.accuracy("m", "pgd", 2.0), "attack must be one of clean, fgsm, got 'pgd'"),
        (lambda card: card.accuracy("m", "clean", 2.0), "eps must be one that was measured, 0, got 2"),
    ],
)
def test_what_was_not_measured_is_not_answered(ask: Callable[[Card], object], message: str) -> None:
    records = [record("clean", 0.0, [True]), record("fgsm", 2.0, [True]), record("fgsm", 4.0, [False])]
    with pytest.raises(ValueError, match=re.escape(message)):
        ask(Card("quick", records, {"m": []}, 1, 0.0))


def test_records_say_how_they_were_judged(card: Card) -> None:
    judged = {one.attack: one.stops_early for one in card.records}
    assert judged == {"clean": False, "fgsm": False, "pgd:steps=20": True, "apgd_ce:steps=20": True}


def test_examples_are_fooled_at_the_smallest_eps(card: Card) -> None:
    assert [example.eps for example in card.examples] == [16.0, 16.0]
    # The attack is stopped by the ball, and the difference is magnified until eps is white.
    for example in card.examples:
        before, after, difference = example.pixels.int()
        assert example.label != example.predicted
        assert 0 < int((after - before).abs().max()) <= 16
        assert torch.equal(difference, (127.5 + (after - before) * example.magnified).round().clamp(0, 255).int())
        assert example.png().startswith(b"\x89PNG")


def test_the_page_shows_numbers_and_warnings(card: Card, tmp_path: Path) -> None:
    write_card(card, tmp_path)
    html, markdown = ((tmp_path / f"card.{kind}").read_text() for kind in ("html", "md"))
    worst = str(card.worst_case("a|b <net>", 16.0))
    assert worst in html and worst in markdown
    assert "a|b &lt;net&gt;" in html and "<net>" not in html.replace("&lt;net&gt;", "")
    assert (tmp_path / "card-example-2.png").exists() and html.count("data:image/png;base64") == 2
    sha256 = card.records[0].checkpoint
    assert f"begins with {sha256[:12]}; its input is PixelSpace.unit(). Seed 0" in html and sha256[:12] in markdown
    assert content(card)["networks"]["a|b <net>"]["sha256"] == sha256 and content(card)["versions"]["fastadv"]
    assert json.loads((tmp_path / "card.json").read_text()) == json.loads(json.dumps(content(card)))

    doubt = Finding("no_gradient", "12 of 64 <gradients> are zero", "do this")
    warned = Card(card.suite, card.records, {"a|b <net>": [doubt]}, 40, 0.0)
    write_card(warned, str(tmp_path))
    html, markdown = ((tmp_path / f"card.{kind}").read_text() for kind in ("html", "md"))
    assert "12 of 64 &lt;gradients&gt; are zero" in html and "12 of 64 &lt;gradients> are zero" in markdown
    assert "No warning" not in html + markdown
    assert "at eps 64 (in doubt: 1 warning)" in html and "at eps 64 (in doubt: 1 warning)" in markdown
    assert warning_lines(warned) == ["a|b <net>: no_gradient: 12 of 64 <gradients> are zero; do this"]
    assert content(warned)["networks"]["a|b <net>"]["warnings"][0]["check"] == "no_gradient"
    assert not list(tmp_path.glob("card-example-*"))  # those of the card before


@pytest.mark.filterwarnings("ignore:.*gradient is zero")
def test_a_masked_gradient_is_warned_of() -> None:
    class Rounded(Brightness):
        def forward(self, images: Tensor) -> Tensor:
            return super().forward((images * 8).round() / 8)

    images, labels = shades(40)
    card = robustness_card(Rounded(), [(images, labels)], space=UNIT, eps=[16], examples=0)
    assert "no_gradient" in {finding.check for finding in card.findings["model"]}
    assert card.examples == []


def test_what_was_asked_is_counted() -> None:
    images, labels = shades(20)
    card = robustness_card(Brightness(), [(images, labels)], space=UNIT, eps=[8, 64], examples=0)
    asked = asked_for([one for one in card.records if one.attack == "fgsm"])
    assert (asked.gradients, asked.forwards) == (20, 40)  # one gradient for both sizes, and each is judged
    assert asked_for([record("mine.py:Own", 1.0, [True])]).gradients is None  # never said to be none


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"suite": "quik"}, "suite must be one of"),
        ({"eps": []}, "eps is empty"),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        robustness_card(Brightness(), [shades(4)], space=UNIT, **arguments)


def test_a_single_size_is_refused() -> None:
    with pytest.raises(TypeError, match=re.escape("as in [2, 4, 8], got 4")):
        robustness_card(Brightness(), [shades(4)], space=UNIT, eps=4)  # type: ignore[arg-type]


def test_batches_that_end_are_refused() -> None:
    with pytest.raises(TypeError, match="only once"):
        robustness_card(Brightness(), iter([shades(4)]), space=UNIT)


@pytest.mark.parametrize("shuffle", [True, False])
def test_batches_that_differ_the_second_time_are_refused(shuffle: bool) -> None:
    """The worst case over images in another order is of no image."""
    images, labels = shades(40)

    class Again:
        passes = 0

        def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
            self.passes += 1
            order = torch.arange(40).roll(self.passes if shuffle else 0)
            for chosen in order.split(16)[: 3 if shuffle or self.passes == 1 else 2]:
                yield images[chosen], labels[chosen]

    with pytest.raises(ValueError, match="the same each time .* batch 0 is" if shuffle else "second time there are 2"):
        robustness_card(Brightness(), Again(), space=UNIT, eps=[16], examples=0)


@pytest.mark.parametrize("correct", [29, 57, 58])
def test_a_limit_that_is_just_met_is_met(correct: int) -> None:
    """As floats, 100 * (29 / 100) is below 29."""
    hits = [number < correct for number in range(100)]
    card = Card("quick", [record("clean", 0.0, hits), record("fgsm", 2.0, hits)], {}, 0, 0.0)
    assert measure_card._verdict(card, float(correct)) == 0
    assert measure_card._verdict(card, correct + 0.1) == 3


def test_suites_are_attacks_in_one_ball() -> None:
    assert tuple(SUITES) == names.SUITES
    for texts in SUITES.values():
        for text in texts:
            name, options = parse_attack(text)
            assert name in attacks.names() and ball_of(attack_class(text), options) == "linf"


# --- a stop that depends on the numbers ------------------------------------------------------------------------------


def dark_sweep(n: int, **more: Any) -> Sweep:
    """Nearly all images are far from the middle, so that few images tell the accuracy."""
    generator = torch.Generator().manual_seed(3)
    bright = torch.rand(n, generator=generator) < 0.5
    pixels = torch.where(bright, 250, 5).to(torch.uint8)[:, None, None, None].expand(n, 1, 4, 4).contiguous()
    images = ImageSet(pixels, bright.long(), ("dark", "bright"))
    return Sweep(dataset="shades", images=images, attacks=["fgsm"], eps=[8.0], batch_size=50, **more)


def test_drawing_stops_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep, subject = dark_sweep(2000), Subject("net", Brightness(), UNIT)
    file = RecordFile(tmp_path / "until.jsonl", Record)
    records, images = measure_until(sweep, [subject], file, points=3)
    n = records[0].n
    assert n < 2000 and len(images) == n and {record.total for record in records} == {2000}
    assert is_within(n, n, 2000, 3) and not is_within(n - 50, n - 50, 2000, 3)  # not one batch too many
    card = Card("quick", records, {"net": []}, 1, 0.0, until=3.0)
    assert card.worst_case("net", 8.0).low == anytime_interval(n, n, 2000).low

    monkeypatch.setattr("fastadv.evaluate.sweep.count_batches", lambda *_, **__: pytest.fail("measured again"))
    again, _ = measure_until(sweep, [subject], RecordFile(tmp_path / "until.jsonl", Record), points=3)
    assert [one.hits.tolist() for one in again] == [one.hits.tolist() for one in records]


def test_the_order_is_drawn_by_the_seed(tmp_path: Path) -> None:
    subject, labels = Subject("net", Brightness(), UNIT), []
    for seed in (0, 0, 1):
        file = RecordFile(tmp_path / f"{len(labels)}.jsonl", Record)
        _, images = measure_until(dark_sweep(400, seed=seed), [subject], file, points=20)
        labels.append(images.labels.tolist())
    assert labels[0] == labels[1] != labels[2]


def test_with_a_limit_intervals_are_about_the_whole_set(tmp_path: Path) -> None:
    sweep, subject = dark_sweep(2000, limit=100, drawn=True), Subject("net", Brightness(), UNIT)
    records, images = measure_until(sweep, [subject], RecordFile(tmp_path / "until.jsonl", Record), points=3)
    assert len(images) == 100 and {record.total for record in records} == {2000}
    card = Card("quick", records, {"net": []}, 1, 0.0, until=3.0)
    assert card.worst_case("net", 8.0).low == anytime_interval(100, 100, 2000).low < 0.97
    notes = " ".join(accuracy_table(card, "net").notes)
    assert "up to the limit, where not all intervals of the worst case are within 3 points" in notes


def test_each_image_has_the_same_chance_of_being_the_first() -> None:
    """Also among images that were drawn by the same seed."""
    pixels = torch.arange(4, dtype=torch.uint8).view(4, 1, 1, 1)
    images = ImageSet(pixels, torch.zeros(4, dtype=torch.int64), ("a", "b"))
    first = [int(select(draw(images, 2, seed), draw_order(2, seed)).images[0]) for seed in range(1000)]  # type: ignore[union-attr]
    assert all(abs(first.count(image) - 250) < 60 for image in range(4))  # 4.4 standard deviations


# --- the command -----------------------------------------------------------------------------------------------------


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    return save_run(tmp_path / "net")


def command(*arguments: str | Path) -> int:
    return main(["evaluate", *map(str, arguments), "--device", "cpu", "--limit", "30", "--eps", "4"])


def test_command(run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert command(run_folder, "--suite", "quick", "--out", out, "--fail-under", "90") == 3
    shown = capsys.readouterr()
    assert "worst case" in shown.out and "below 90 %" in shown.err and "eps 4" in shown.err
    assert str(out / "card.html") in shown.out
    measured = read_records(out / "robustness.jsonl", Record)
    assert [one.attack for one in measured] == ["clean", *SUITES["quick"]]

    assert command(run_folder, "--suite", "quick", "--out", out, "--fail-under", "0.001", "--json") in (0, 3)
    found = json.loads(capsys.readouterr().out)
    assert found["suite"] == "quick" and found["images"]["n"] == 30
    assert read_records(out / "robustness.jsonl", Record) == measured  # nothing was measured again


def test_command_until(run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    more = ("--suite", "quick", "--until", "40", "--batch-size", "10", "--out", out, "--json")
    assert command(run_folder, *more) == 0
    said = capsys.readouterr()
    images = json.loads(said.out)["images"]
    assert said.err.splitlines()[-1].startswith(f"{images['n']} of 500 images: the worst case is known within ")
    assert images["n"] < 30 and images["total"] == 500
    stopped = "drawn at random until the interval of the worst case at each eps was within 40 points."
    assert stopped in (out / "card.md").read_text()


def test_command_dry_run_says_that_until_may_stop_earlier(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ("--suite", "quick", "--dry-run", "--out", tmp_path / "out")
    for until, said in (((), False), (("--until", "5"), True)):
        assert command(run_folder, *more, *until) == 0
        assert ("drawing stops earlier" in capsys.readouterr().out) is said


def test_command_dry_run(run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(run_folder, "--suite", "standard", "--dry-run", "--out", tmp_path / "out") == 0
    shown = capsys.readouterr().out
    assert all(attack in shown for attack in SUITES["standard"])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--until", "1"), "add --suite"),
        (("--fail-under", "40"), "add --suite"),
        (("--suite", "quick", "--attacks=pgd"), "leave out --attacks"),
        (("--suite", "quick", "--no-early-stop"), "leave out --no-early-stop"),
        (("--suite", "quick", "--until", "0"), "above 0"),
        (("--suite", "quick", "--until", "1", "--save-images", "x"), "--save-images"),
        (("--suite", "quik"), "quick"),
    ],
)
def test_options_that_do_not_fit(
    options: tuple[str, ...], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        command(tmp_path, *options)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err
