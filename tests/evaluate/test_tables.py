from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from fastadv.evaluate import Record, Table, proportion, robustness_tables, save_table
from fastadv.evaluate.tables import to_csv, to_json, to_markdown, to_rich

MakeRecord = Callable[..., Record]


@pytest.fixture
def records(make_record: MakeRecord) -> list[Record]:
    """Two models, two attacks; the second model was not attacked at eps = 2."""
    return [
        make_record("Baseline", "clean", 0.0, 950, 999),
        make_record("Baseline", "step_ll", 16.0, 100, 500),
        make_record("Baseline", "step_ll", 2.0, 500, 900),
        make_record("Baseline", "iter_ll", 2.0, 10, 20),
        make_record("Adv | k=16", "clean", 0.0, 900, 1000),
        make_record("Adv | k=16", "step_ll", 16.0, 800, 990),
    ]


def test_markdown_is_the_layout_of_table_1(records: list[Record]) -> None:
    tables = robustness_tables(records)
    assert list(tables) == ["step_ll", "iter_ll"]
    assert to_markdown(tables["step_ll"]) == (
        "**Accuracy on step_ll adversarial images**\n"
        "\n"
        "| Model | Metric | Clean | eps = 2 | eps = 16 |\n"
        "| --- | --- | ---: | ---: | ---: |\n"
        "| Baseline | top 1 | 95.0% ±1.4 | 50.0% ±3.1 | 10.0% ±1.9 |\n"
        "|  | top 5 | 99.9% ±0.2 | 90.0% ±1.9 | 50.0% ±3.1 |\n"
        "| Adv \\| k=16 | top 1 | 90.0% ±1.9 | - | 80.0% ±2.5 |\n"
        "|  | top 5 | 100.0% ±0.0 | - | 99.0% ±0.6 |\n"
        "\n"
        "Over 1,000 of the 10,000 test images of fashion_mnist; eps in pixel values of [0, 255].\n"
        "\n"
        "±: half the width of the 95 % confidence interval from the standard error of the mean.\n"
        "\n"
        "At 0 % and 100 % the ± is 0; the 95 % bound is then 3 / n away (0.3 % with n = 1,000).\n"
    )


def test_csv_is_numbers(records: list[Record]) -> None:
    assert to_csv(robustness_tables(records)["step_ll"]) == (
        "Model,Metric,Clean,Clean ±,eps = 2,eps = 2 ±,eps = 16,eps = 16 ±\n"
        "Baseline,top 1,95.0000,1.3508,50.0000,3.0990,10.0000,1.8594\n"
        "Baseline,top 5,99.9000,0.1959,90.0000,1.8594,50.0000,3.0990\n"
        "Adv | k=16,top 1,90.0000,1.8594,,,80.0000,2.4792\n"
        "Adv | k=16,top 5,100.0000,0.0000,,,99.0000,0.6167\n"
    )


def test_csv_has_no_intervals_of_counts() -> None:
    table = Table("c", ("Model", "n", "Rate"), (("a", "30", proportion(1, 2)), ("b", None, "50%")))
    assert to_csv(table) == "Model,n,Rate,Rate ±\na,30,50.0000,69.2965\nb,,50,\n"


def test_json_is_numbers(records: list[Record]) -> None:
    parsed = json.loads(to_json(robustness_tables(records)["step_ll"]))
    assert parsed["header"] == ["Model", "Metric", "Clean", "eps = 2", "eps = 16"]
    name, metric, clean, missing, _ = parsed["rows"][2]
    assert (name, metric, missing) == ("Adv | k=16", "top 1", None)
    assert clean == {"value": 0.9, "half_width": pytest.approx(0.0185942, rel=1e-5)}
    assert len(parsed["notes"]) == 3


def test_the_terminal_shows_every_cell_and_takes_no_name_for_markup(make_record: MakeRecord) -> None:
    table = robustness_tables([make_record("[adv]", "clean", 0.0, 950), make_record("[adv]", "fgsm", 2.0, 10)])["fgsm"]
    console = Console(width=100, file=io.StringIO())
    with console.capture() as shown:
        console.print(to_rich(table))
    text = shown.get()
    for part in ("[adv]", "top 1", "95.0% ±1.4", "1.0% ±0.6", "eps = 2", "fgsm", "1,000 of the 10,000"):
        assert part in text


@pytest.mark.parametrize(("classes", "top5", "rows"), [(5, None, ["top 1"]), (6, 990, ["top 1", "top 5"])])
def test_top_5_is_left_out_with_a_note(
    make_record: MakeRecord, classes: int, top5: int | None, rows: list[str]
) -> None:
    given = {"classes": classes, "top5": top5}
    [table] = robustness_tables(
        [make_record("a", "clean", 0.0, 950, **given), make_record("a", "fgsm", 2.0, 900, **given)]
    ).values()
    assert [row[1] for row in table.rows] == rows
    note = "Top 5 is left out: fashion_mnist has 5 classes, fewer than six."
    assert (note in table.notes) is (classes < 6)


def test_notes_state_a_whole_split_and_the_options(make_record: MakeRecord) -> None:
    [table] = robustness_tables(
        [make_record("a", "fgsm", 2.0, 9, n=10_000, options={"alpha": 2, "bn": "batch"})]
    ).values()
    assert table.notes[0] == "Over the 10,000 test images of fashion_mnist; eps in pixel values of [0, 255]."
    assert 'Options of the attack: {"alpha": 2, "bn": "batch"}.' in table.notes


@pytest.mark.parametrize(
    ("top1", "top5", "n", "note"),
    [
        (0, 5, 20, "15 % with n = 20"),
        (20, None, 20, "15 % with n = 20"),
        (9, 10_000, 10_000, "0.03 % with n = 10,000"),
        (0, None, 2, "100 % with n = 2"),
        (1, 19, 20, None),
    ],
)
def test_an_interval_of_no_width_has_a_note(
    make_record: MakeRecord, top1: int, top5: int | None, n: int, note: str | None
) -> None:
    [table] = robustness_tables([make_record("a", "fgsm", 2.0, top1, top5, n=n)]).values()
    assert [note for note in table.notes if "the ± is 0" in note] == (
        [f"At 0 % and 100 % the ± is 0; the 95 % bound is then 3 / n away ({note})."] if note else []
    )


def test_models_without_a_gradient_have_a_note(make_record: MakeRecord) -> None:
    """The worst size of each; another attack's is in its own table."""
    counts = {("a", "fgsm", 2.0): 1000, ("a", "fgsm", 4.0): 998, ("b", "fgsm", 2.0): 0, ("c", "fgsm", 2.0): None}
    records = [make_record(*cell, 900, without_gradient=count) for cell, count in counts.items()]
    records += [make_record("b", "pgd", 4.0, 900, without_gradient=1), make_record("d", "clean", 0.0, 950)]
    notes = {name: [n for n in table.notes if "gradient" in n] for name, table in robustness_tables(records).items()}
    end = "so the attack does little or nothing to them, and it may look more robust than it is."
    assert notes == {
        "fgsm": [f"a: the gradient is zero or not finite for 1,000 of 1,000 images (eps = 2), {end}"],
        "pgd": [f"b: the gradient is zero or not finite for 1 of 1,000 images (eps = 4), {end}"],
    }
    assert notes["fgsm"][0] in to_markdown(robustness_tables(records)["fgsm"])


def test_options_of_an_attack_make_a_table_of_its_own(make_record: MakeRecord) -> None:
    records = [
        make_record("a", "clean", 0.0, 900),
        make_record("a", "pgd", 2.0, 500),
        make_record("a", "pgd:steps=20", 2.0, 400, options={"steps": 20}),
    ]
    tables = robustness_tables(records)
    assert [(name, str(table.rows[0][3])) for name, table in tables.items()] == [
        ("pgd", "50.0% ±3.1"),
        ("pgd:steps=20", "40.0% ±3.0"),
    ]
    assert 'Options of the attack: {"steps": 20}.' in tables["pgd:steps=20"].notes


def test_no_records_are_no_tables() -> None:
    assert robustness_tables([]) == {}


def test_different_images_cannot_share_a_table(make_record: MakeRecord) -> None:
    records = [make_record("a", "clean", 0.0, 9), make_record("b", "clean", 0.0, 9, dataset="mnist", images="other")]
    with pytest.raises(ValueError, match=r"a \(fashion_mnist test, 1000 images\) and b \(mnist test, 1000 images\)"):
        robustness_tables(records)


def test_two_records_for_a_cell_are_refused(make_record: MakeRecord) -> None:
    records = [make_record("a", "fgsm", 2.0, 900, checkpoint=weights) for weights in ("old", "new")]
    with pytest.raises(ValueError, match="two records for a, fgsm, eps = 2"):
        robustness_tables(records)


def test_saved_under_the_whole_stem(tmp_path: Path) -> None:
    table = Table("c", ("Model", "Clean"), (("a", proportion(1, 2)),))
    paths = save_table(table, tmp_path / "tables" / "eps.0.5")
    assert [path.name for path in paths] == ["eps.0.5.md", "eps.0.5.csv", "eps.0.5.json"]
    for path, render in zip(paths, (to_markdown, to_csv, to_json), strict=True):
        assert path.read_text(encoding="utf-8") == render(table)
