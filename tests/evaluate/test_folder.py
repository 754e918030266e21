"""What a second command into a folder shows of what the first one measured there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from fastadv.evaluate import Record, TransferRecord, robustness_figure, robustness_tables
from fastadv.evaluate.folder import describe_left_out, select_comparable

MakeRecord = Callable[..., Record]
OTHERS = "of a, with other weights or attack options than the last under this name"


def cells(records: list[Record]) -> list[tuple[str, str, float, int]]:
    return [(r.model, r.attack, r.eps, r.top1) for r in records]


@pytest.fixture
def before(make_record: MakeRecord) -> list[Record]:
    return [
        *(make_record("a", "clean", 0.0, 900), make_record("a", "fgsm", 8.0, 400)),
        *(make_record("b", "clean", 0.0, 800), make_record("b", "fgsm", 8.0, 500)),
    ]


def test_another_attack_stands_beside_the_first(make_record: MakeRecord, before: list[Record]) -> None:
    now = [before[0], make_record("a", "pgd", 8.0, 100)]
    shown, left_out = select_comparable(now, [*before, now[1]])
    assert cells(shown) == cells([*now, *before[1:]]) and left_out == []
    tables = robustness_tables(shown)
    assert {name: [row[0] for row in table.rows] for name, table in tables.items()} == {
        "pgd": ["a"],
        "fgsm": ["a", "b"],
    }
    panels = robustness_figure(shown).axes
    assert [panel.get_title() for panel in panels] == ["pgd", "fgsm"]
    drawn = [[len(one.lines[0].get_xdata()) for one in panel.containers] for panel in panels]
    assert drawn == [[2, 0], [2, 2]]  # b, which is in the legend, was not attacked by pgd


def test_another_size_and_another_model(make_record: MakeRecord, before: list[Record]) -> None:
    now = [make_record("c", "clean", 0.0, 850), make_record("c", "fgsm", 4.0, 600)]
    shown, left_out = select_comparable(now, [*before, *now])
    [table] = robustness_tables(shown).values()
    assert table.header[2:] == ("Clean", "eps = 4", "eps = 8") and left_out == []
    assert [(row[0], [cell is not None for cell in row[2:]]) for row in table.rows] == [
        *(("c", [True, True, False]), ("a", [True, False, True]), ("b", [True, False, True]))
    ]


@pytest.mark.parametrize(
    ("changed", "left_out", "reason"),
    [
        ({"images": "others"}, 4, "on other images, or on images shown at another size"),
        ({"images": "fewer", "n": 800}, 4, "on 1,000 images (this command: 800)"),
        ({"seed": 1}, 4, "with seed 0 (this command: 1)"),
        ({"checkpoint": "trained further"}, 2, OTHERS),  # a's: b is what it was
        ({"space": "symmetric"}, 2, OTHERS),
        ({"options": {"fast": True}}, 1, OTHERS),  # of the same cell
    ],
)
def test_what_does_not_fit_is_left_out_and_said(
    make_record: MakeRecord, before: list[Record], changed: dict[str, object], left_out: int, reason: str
) -> None:
    clean = {name: value for name, value in changed.items() if name != "options"}
    now = [make_record("a", "clean", 0.0, 700, **clean), make_record("a", "fgsm", 8.0, 300, **changed)]
    shown, others = select_comparable(now, [*before, *now])
    assert len(others) == left_out
    [line] = describe_left_out(now[0], others)
    assert line == f"{left_out} measurement{'s' * (left_out > 1)} {reason}"
    assert cells(shown) == cells([*now, *(before[2:] if left_out < 4 else [])])
    robustness_tables(shown)  # raises where two records are for one cell


def test_of_a_model_that_is_not_in_the_command_the_last_weights_count(make_record: MakeRecord) -> None:
    old, new = (make_record("a", "fgsm", 8.0, n, checkpoint=f"{n}") for n in (1, 2))
    now = [make_record("b", "fgsm", 8.0, 3)]
    shown, left_out = select_comparable(now, [old, new, *now])
    assert shown == [*now, new] and left_out == [old]


def test_the_same_measurement_by_two_names_is_not_left_out(make_record: MakeRecord, before: list[Record]) -> None:
    renamed = [replace(record, model="A") for record in before[:2]]
    shown, left_out = select_comparable(renamed, [*before, *renamed])
    assert cells(shown) == cells([*renamed, *before]) and left_out == []


def test_transfers(make_record: MakeRecord) -> None:
    def record(source: str, target: str, attack: str, **given: object) -> TransferRecord:
        common = vars(make_record("", attack, 8.0, 0)).copy()
        for name in ("model", "checkpoint", "space", "top1", "top5", "correct", "stops_early", "gradients", "queries"):
            del common[name]
        models = {"source": source, "target": target, "source_checkpoint": source, "target_checkpoint": target}
        spaces = {"source_space": "unit", "target_space": "unit"}
        return TransferRecord(**{**common, **models, **spaces, **given}, top1=[1, 1, 1], top5=None)

    before = [record("a", "b", "fgsm"), record("a", "c", "fgsm"), record("a", "b", "pgd", seed=1)]
    now = [record("a", "b", "iter_ll")]
    assert select_comparable(now, [*before, *now]) == ([*now, *before[:2]], before[2:])
    now = [record("a", "b", "iter_ll", target_checkpoint="trained further")]
    assert select_comparable(now, [*before, *now]) == ([*now, before[1]], [before[0], before[2]])
