from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from rich.console import Console

from fastadv.evaluate import Record, Table, proportion, robustness_tables, save_table
from fastadv.evaluate.tables import display_rows, to_csv, to_json, to_markdown, to_rich, what_eps_is

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
        "| Baseline | top 1 | 95.0% [93.5-96.2] | 50.0% [46.9-53.1] | 10.0% [8.3-12.0] |\n"
        "|  | top 5 | 99.9% [99.4-100.0] | 90.0% [88.0-91.7] | 50.0% [46.9-53.1] |\n"
        "| Adv \\| k=16 | top 1 | 90.0% [88.0-91.7] | - | 80.0% [77.4-82.4] |\n"
        "|  | top 5 | 100.0% [99.6-100.0] | - | 99.0% [98.2-99.5] |\n"
        "\n"
        "Over 1,000 of the 10,000 test images of fashion_mnist; eps in pixel values of [0, 255].\n"
        "\n"
        "In brackets the 95 % confidence interval, Wilson's.\n"
    )


def test_csv_is_numbers(records: list[Record]) -> None:
    """In percent, which the columns' names say; the paper's interval has a column of its own."""
    heads, *rows = to_csv(robustness_tables(records)["step_ll"]).splitlines()
    parts = ("", " Wilson low", " Wilson high", " normal ±")
    assert heads.split(",") == [
        *("Model", "Metric"),
        *(f"{name}{part} (%)" for name in ("Clean", "eps = 2", "eps = 16") for part in parts),
        *("Attack", "Data set", "Split", "n", "Seed", "Options"),
    ]
    assert rows[0] == (
        "Baseline,top 1,95.0000,93.4686,96.1870,1.3508,50.0000,46.9069,53.0931,3.0990,10.0000,8.2909,12.0152,1.8594,"
        "step_ll,fashion_mnist,test,1000,0,{}"
    )
    assert rows[2].startswith("Adv | k=16,top 1,90.0000,87.9848,91.7091,1.8594,,,,,80.0000,")
    assert rows[3].startswith("Adv | k=16,top 5,100.0000,99.6173,100.0000,0.0000,,,,,99.0000,")


def test_csv_has_no_intervals_of_counts() -> None:
    rows = (("a", "30", proportion(1, 2), "40.5%"), ("b", None, "50%", None))
    assert to_csv(Table("c", ("Model", "n", "Rate", "Paper"), rows)) == (
        "Model,n,Rate (%),Rate Wilson low (%),Rate Wilson high (%),Rate normal ± (%),Paper (%)\n"
        "a,30,50.0000,9.4529,90.5471,69.2965,40.5\n"
        "b,,50,,,,\n"
    )


def test_csv_says_what_a_row_is_of(make_record: MakeRecord) -> None:
    options = {"steps": 3}
    [table] = robustness_tables(
        [make_record("a", "clean", 0.0, 950, seed=7), make_record("a", "pgd:steps=3", 2.0, 9, seed=7, options=options)]
    ).values()
    [row] = csv.DictReader(io.StringIO(to_csv(table)))
    expected = {"Attack": "pgd:steps=3", "Data set": "fashion_mnist", "Split": "test", "n": "1000", "Seed": "7"}
    assert row.items() >= {**expected, "Options": '{"steps": 3}', "Clean (%)": "95.0000"}.items()
    assert json.loads(to_json(table))["about"] == {**expected, "Options": '{"steps": 3}'}


def test_images_in_files_are_named_by_their_folder(make_record: MakeRecord) -> None:
    """``imagenet`` is any set of image files."""
    [table] = robustness_tables([make_record("a", "fgsm", 2.0, 9, dataset="imagenet", folder="flowers <17>")]).values()
    assert table.notes[0].startswith("Over 1,000 of the 10,000 test images of the folder flowers <17>;")
    assert "ImageNet" not in to_markdown(table) and ",flowers <17>," in to_csv(table)
    assert "of the folder flowers &lt;17&gt;;" in table._repr_html_()


def test_a_notebook_shows_a_table(records: list[Record]) -> None:
    table = robustness_tables(records)["step_ll"]
    shown = table._repr_html_()
    root = ElementTree.fromstring(f"<div>{shown.replace('<br>', '<br/>')}</div>")
    rows = [[cell.text or "" for cell in row] for row in root.iter("tr")]
    assert rows[0] == list(table.header) and rows[1:] == [list(row) for row in display_rows(table)]
    assert [caption.text for caption in root.iter("caption")] == [table.caption]


def test_a_notebook_shows_a_proportion() -> None:
    assert proportion(950, 1000)._repr_html_() == "95.0% [93.5-96.2]"


def test_a_notebook_shows_a_record(make_record: MakeRecord) -> None:
    shown = make_record("<b>a", "fgsm", 2.0, 950, 990)._repr_html_()
    for part in ("&lt;b&gt;a", "fgsm", "95.0% [93.5-96.2], 950 of 1,000", "99.0% [98.2-99.5], 990 of 1,000"):
        assert part in shown


def test_json_is_numbers(records: list[Record]) -> None:
    parsed = json.loads(to_json(robustness_tables(records)["step_ll"]))
    assert parsed["header"] == ["Model", "Metric", "Clean", "eps = 2", "eps = 16"]
    name, metric, clean, missing, _ = parsed["rows"][2]
    assert (name, metric, missing) == ("Adv | k=16", "top 1", None)
    expected = {"value": 0.9, "half_width": 0.0185942, "low": 0.879849, "high": 0.917091}
    assert clean == pytest.approx(expected, rel=1e-5)
    assert "fractions of 1: value, Wilson's" in parsed["numbers"] and len(parsed["notes"]) == 2


def test_the_terminal_shows_every_cell_and_takes_no_name_for_markup(make_record: MakeRecord) -> None:
    table = robustness_tables([make_record("[adv]", "clean", 0.0, 950), make_record("[adv]", "fgsm", 2.0, 10)])["fgsm"]
    console = Console(width=100, file=io.StringIO())
    with console.capture() as shown:
        console.print(to_rich(table))
    text = shown.get()
    for part in ("[adv]", "top 1", "95.0% [93.5-96.2]", "1.0% [0.5-1.8]", "eps = 2", "fgsm", "1,000 of the 10,000"):
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


@pytest.mark.parametrize(("top1", "text"), [(0, "0.0% [0.0-16.1]"), (20, "100.0% [83.9-100.0]")])
def test_none_of_so_many_is_not_shown_as_certain(make_record: MakeRecord, top1: int, text: str) -> None:
    [table] = robustness_tables([make_record("a", "fgsm", 2.0, top1, n=20)]).values()
    assert f"| {text} |" in to_markdown(table)


def test_the_papers_tables_fit_the_terminal(records: list[Record]) -> None:
    """In 80 columns an interval goes below its number, and is not broken."""
    console = Console(width=80, file=io.StringIO())
    with console.capture() as shown:
        console.print(to_rich(robustness_tables([*records, *eps_4_and_8(records)])["step_ll"]))
    text = shown.get()
    assert max(map(len, text.splitlines())) <= 80
    assert all(part in text for part in ("95.0%", "[93.5-96.2]", "100.0%", "[99.6-100.0]"))


def eps_4_and_8(records: list[Record]) -> list[Record]:
    return [replace(record, eps=eps) for record in records if record.eps == 16 for eps in (4.0, 8.0)]


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
        ("pgd", "50.0% [46.9-53.1]"),
        ("pgd:steps=20", "40.0% [37.0-43.1]"),
    ]
    assert 'Options of the attack: {"steps": 20}.' in tables["pgd:steps=20"].notes


def test_no_records_are_no_tables() -> None:
    assert robustness_tables([]) == {}


def test_different_images_cannot_share_a_table(make_record: MakeRecord) -> None:
    records = [make_record("a", "clean", 0.0, 9), make_record("b", "clean", 0.0, 9, dataset="mnist", images="other")]
    with pytest.raises(ValueError, match=r"a \(fashion_mnist test, 1,000 images\) and b \(mnist test, 1,000 images\)"):
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


def test_what_eps_bounds(make_record: MakeRecord) -> None:
    for attack, options in (("fast_grad_l2", {}), ("pgd:norm=l2", {"norm": "l2"}), ("apgd_ce:norm=l2", {"norm": "l2"})):
        assert "the L2 norm of the whole perturbation" in what_eps_is(
            [make_record("A", attack, 100.0, 5, options=options)]
        )
    assert what_eps_is([make_record("A", "pgd:steps=2", 8.0, 5, options={"steps": 2})]).endswith("[0, 255].")
    assert what_eps_is([make_record("A", "mine.py:Mine", 8.0, 5)]).endswith("[0, 255], as mine.py bounds it.")
