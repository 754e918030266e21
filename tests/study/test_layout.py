"""Tables and figures of studies, from made-up records."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from fastadv.evaluate import Record
from fastadv.evaluate.tables import Table
from fastadv.study.experiments import STUDIES, one_step
from fastadv.study.layout import Row, accuracy_table
from fastadv.study.networks import Network, vary
from fastadv.study.results import Results
from tests.study.conftest import tiny

SCALE = tiny()
MakeRecord = Callable[..., Record]
NETWORKS = [Network(f"seed {seed}", vary(SCALE.base, {"seed": seed})) for seed in range(4)]


def table(make_record: MakeRecord, *measured: tuple[str, int, int, int], bold_ties: bool = False) -> Table:
    """A row for each (attack, number of images, correct clean images, correct images at every eps)."""
    rows, records = [], []
    for network, (attack, n, clean, attacked) in zip(NETWORKS, measured, strict=False):
        rows.append(Row((network.name,), network, attack))
        records.append(make_record(network.id, "clean", 0.0, clean, n=n))
        records += [make_record(network.id, attack, eps, attacked, n=n) for eps in SCALE.eps]
    return accuracy_table(
        SCALE, Results(records), rows, caption="", labels=("Network",), tops=(1,), bold_ties=bold_ties
    )


def test_bold_cells_are_chosen_among_rows_under_one_attack(make_record: MakeRecord) -> None:
    under_fgsm = [("fgsm", 1000, clean, attacked) for clean, attacked in ((900, 400), (700, 500), (890, 490))]
    made = table(make_record, *under_fgsm, ("step_ll", 1000, 600, 800), bold_ties=True)
    clean, *attacked = range(3, 8)
    # The intervals of 900 and 890 of 1,000 overlap, and those of 500 and 490; the last row has a weaker attack.
    assert made.bold == {(0, clean), (2, clean)} | {(row, column) for row in (1, 2, 3) for column in attacked}


def test_tables_name_their_confidence_interval(make_record: MakeRecord) -> None:
    made = table(make_record, ("fgsm", 1000, 900, 0))
    assert [str(cell) for cell in made.rows[0][-2:]] == ["0.0% [0.0-0.4]"] * 2
    assert sum("95 % confidence interval, Wilson's" in note for note in made.notes) == 1


def of_all(make_record: MakeRecord, study: str) -> Results:
    """Every network is right on 90 of 100 clean images, and on one image less under attack than the one before."""
    records = []
    for number, network in enumerate(STUDIES[study].networks(SCALE)):
        for attack in ("clean", "step_ll", "fgsm", "iter_ll", "iter_basic"):
            for eps in (0.0,) if attack == "clean" else SCALE.eps:
                right = 90 if attack == "clean" else 80 - number
                records.append(make_record(network.id, attack, eps, right, 95, n=100))
    return Results(records)


def test_base_networks_have_the_same_style_in_all_figures(make_record: MakeRecord) -> None:
    """Whatever their names and positions."""
    looks: dict[str, set[tuple[Any, ...]]] = {}
    bases = {SCALE.standard("").id: "standard", SCALE.adversarial("").id: "adversarial"}
    for study in ("table1", "table2", "k_sweep", "delay", "regularizers", "activations", "fixed_eps"):
        names = {network.name: bases.get(network.id, "") for network in STUDIES[study].networks(SCALE)}
        [plot] = STUDIES[study].show(SCALE, of_all(make_record, study)).plots.values()
        for drawn in [drawn for axes in plot.figure.axes for drawn in axes.containers]:
            line = drawn.lines[0]
            look = (line.get_color(), line.get_marker(), line.get_linestyle())
            looks.setdefault(names[drawn.get_label()], set()).add(look)
    assert len(looks["standard"]) == len(looks["adversarial"]) == 1 and looks["standard"] != looks["adversarial"]
    assert not looks[""] & (looks["standard"] | looks["adversarial"])


def test_differences_to_the_reference_network(make_record: MakeRecord) -> None:
    [plot] = STUDIES["regularizers"].show(SCALE, of_all(make_record, "regularizers")).plots.values()
    accuracy, apart = plot.figure.axes
    assert (accuracy.get_title(), apart.get_title()) == ("step l.l.", "step l.l., minus All three")
    assert len(accuracy.containers) == 5
    found = {drawn.get_label(): drawn.lines[0].get_ydata() for drawn in apart.containers}
    assert {name: list(values) for name, values in found.items()} == {
        name: pytest.approx([0, *[-number] * 4])
        for number, name in enumerate(
            ["No dropout", "No label smoothing", "No dropout or smoothing", "No weight decay"], 1
        )
    }


def test_panels_of_differences_share_an_axis_that_shows_all_of_them(make_record: MakeRecord) -> None:
    [plot] = STUDIES["activations"].show(SCALE, of_all(make_record, "activations")).plots.values()
    apart = [axes for axes in plot.figure.axes if "minus" in axes.get_title()]
    [(low, high)] = {axes.get_ylim() for axes in apart}
    assert len(apart) == 3
    assert all(low < axes.dataLim.ymin and axes.dataLim.ymax < high for axes in apart)


def test_figures_say_what_they_show_on_which_images(make_record: MakeRecord) -> None:
    [plot] = STUDIES["regularizers"].show(SCALE, of_all(make_record, "regularizers")).plots.values()
    title = plot.figure.get_suptitle().replace("\n", " ")
    assert "top-1 accuracy" in title and "100" in title and title.endswith("seed 0")
    assert plot.figure.legends[0].get_title().get_text() == "Points at the same eps are drawn side by side."


def test_one_step_methods_are_drawn_with_at_most_five_lines_in_a_panel(make_record: MakeRecord) -> None:
    study = STUDIES["one_step"]
    records = [
        make_record(network.id, attack, eps, 80, n=100)
        for network in study.networks(SCALE)
        for attack in ("clean", *one_step.EVALUATION_ATTACKS, *one_step.NOISE)
        for eps in ((0.0,) if attack == "clean" else SCALE.eps)
    ]
    [plot] = study.show(SCALE, Results(records)).plots.values()
    drawn = [[bars.get_label() for bars in axes.containers] for axes in plot.figure.axes]
    assert [len(labels) for labels in drawn] == [5, 4, 5, 4]
    for axes in plot.figure.axes:
        colours = [bars.lines[0].get_color() for bars in axes.containers]
        assert len(set(colours)) == len(colours)


def test_ratios_near_one_are_told_apart(make_record: MakeRecord) -> None:
    shown = STUDIES["capacity"].show(SCALE, of_all(make_record, "capacity"))
    for axes in shown.plots["capacity-top5"].figure.axes:
        low, high = axes.get_ylim()
        assert low <= axes.dataLim.ymin and axes.dataLim.ymax <= high
        assert high - low < 1.2 * max(axes.dataLim.height, 0.01)


def test_ratios_in_figures_equal_those_in_tables(make_record: MakeRecord) -> None:
    shown = STUDIES["capacity"].show(SCALE, of_all(make_record, "capacity"))
    axes = shown.plots["capacity-top1"].figure.axes[0]
    drawn = axes.containers[0].lines[0].get_ydata()
    cells = [row[4] for row in shown.tables["capacity-top1"].rows[: 2 * len(SCALE.widths) : 2]]
    assert [f"{value:.3f}" for value in drawn] == [str(cell).partition(" ")[0] for cell in cells]
    assert axes.get_ylim()[1] < 2 and "%" not in axes.get_ylabel()
