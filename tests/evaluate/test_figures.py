from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import matplotlib
import matplotlib.image
import pytest

from fastadv.evaluate import Record, robustness_figure, save_figure
from fastadv.evaluate.figures import COLOURS

MakeRecord = Callable[..., Record]


@pytest.fixture
def records(make_record: MakeRecord) -> list[Record]:
    return [
        make_record(model, attack, eps, 950 - int(50 * eps), 990)
        for model in ("Baseline", "Adv. training")
        for attack, sizes in (("clean", (0.0,)), ("step_ll", (16.0, 2.0, 4.0)), ("iter_ll", (2.0,)))
        for eps in sizes
    ]


def test_a_panel_per_attack_a_line_per_model_clean_at_0(records: list[Record]) -> None:
    figure = robustness_figure(records)
    assert [axes.get_title() for axes in figure.axes] == ["step_ll", "iter_ll"]
    step_ll, iter_ll = figure.axes
    assert [len(axes.containers) for axes in figure.axes] == [2, 2]
    line = step_ll.containers[0].lines[0]
    assert list(line.get_xdata()) == [0, 2, 4, 16]
    assert list(line.get_ydata()) == pytest.approx([95, 85, 75, 15])
    assert list(iter_ll.containers[1].lines[0].get_xdata()) == [0, 2]


def test_all_panels_have_one_axis(records: list[Record]) -> None:
    step_ll, iter_ll = robustness_figure(records).axes
    assert list(step_ll.get_xticks()) == list(iter_ll.get_xticks()) == [0, 2, 4, 16]
    assert step_ll.get_xlim() == iter_ll.get_xlim()


def test_sizes_in_l2_have_an_axis_of_their_own(make_record: MakeRecord) -> None:
    records = [make_record("a", attack, eps, 9) for attack, eps in (("pgd", 2.0), ("fgsm", 4.0))]
    records += [make_record("a", "pgd:norm=l2", eps, 9, options={"norm": "l2"}) for eps in (100.0, 200.0)]
    pgd, fgsm, in_l2 = robustness_figure(records).axes
    assert list(pgd.get_xticks()) == list(fgsm.get_xticks()) == [0, 2, 4] and pgd.get_xlim() == fgsm.get_xlim()
    assert list(in_l2.get_xticks()) == [0, 100, 200] and in_l2.get_xlim()[1] > 200 > pgd.get_xlim()[1]
    assert in_l2.get_xlabel().startswith("eps in L2 (") and pgd.get_xlabel().startswith("eps (")


def test_a_figure_says_what_was_measured(records: list[Record]) -> None:
    for top in (1, 5):
        figure = robustness_figure(records, top=top)
        assert figure.get_suptitle() == (
            f"Top-{top} accuracy with 95 % confidence intervals\n"
            "1,000 of the 10,000 test images of fashion_mnist, seed 0"
        )
        assert figure.axes[0].get_ylabel() == f"top-{top} accuracy (%)"


def test_a_panel_has_the_options_of_its_attack(make_record: MakeRecord) -> None:
    options = {"steps": 3, "fast": True}
    [panel] = robustness_figure([make_record("a", "pgd:steps=3", 2.0, 9, options=options)]).axes
    assert panel.get_title() == "pgd:steps=3:fast=True"


def test_the_legend_says_which_model_has_no_gradient(make_record: MakeRecord) -> None:
    records = [
        make_record(model, "fgsm", 2.0, 900, without_gradient=n) for model, n in (("a", 10), ("b", 9), ("c", None))
    ]
    labels = robustness_figure(records).axes[0].get_legend_handles_labels()[1]
    assert labels == ["a (without a gradient)", "b", "c"]


def test_wilsons_intervals_are_drawn(records: list[Record]) -> None:
    [bars] = robustness_figure(records).axes[0].containers[0].lines[2]
    (_, low), (_, high) = bars.get_segments()[0]
    assert (low, high) == pytest.approx((93.4686, 96.1870), abs=1e-3)


def test_models_differ_without_colour(make_record: MakeRecord) -> None:
    records = [make_record(f"model {i}", "fgsm", 2.0, 900) for i in range(20)]
    lines = [container.lines[0] for container in robustness_figure(records).axes[0].containers]
    assert len({(line.get_marker(), line.get_linestyle()) for line in lines}) == 20


def test_colours_differ_in_grey() -> None:
    greys = [
        int(colour[1:3], 16) * 0.299 + int(colour[3:5], 16) * 0.587 + int(colour[5:], 16) * 0.114 for colour in COLOURS
    ]
    assert all(abs(one - other) > 15 for one, other in itertools.combinations(greys, 2))
    assert all(abs(one - other) > 60 for one, other in itertools.pairwise(greys))
    assert max(greys) < 190  # fainter ones are hard to see on white


def test_lines_that_are_alike_do_not_cover_each_other(make_record: MakeRecord) -> None:
    records = [make_record(f"model {i}", "fgsm", eps, 900) for i in range(3) for eps in (2.0, 4.0)]
    figure = robustness_figure(records)
    figure.draw_without_rendering()
    [axes] = figure.axes
    lines = [container.lines[0] for container in axes.containers]
    assert [list(line.get_xdata()) for line in lines] == [[2, 4]] * 3  # which the data do not show
    places = [line.get_transform().transform(line.get_xydata()) for line in lines]  # in pixels
    assert [place[0][0] - places[0][0][0] for place in places] == pytest.approx(
        [0, 3 / 72 * figure.dpi, 6 / 72 * figure.dpi]
    )
    assert all((axes.bbox.x0 < place[:, 0]).all() and (place[:, 0] < axes.bbox.x1).all() for place in places)


def test_files_and_their_labels(records: list[Record], tmp_path: Path) -> None:
    before = dict(matplotlib.rcParams)
    svg, png = save_figure(robustness_figure(records), tmp_path / "figures" / "robustness-top1")
    assert (svg.name, png.name) == ("robustness-top1.svg", "robustness-top1.png")
    text = svg.read_text()
    for label in (
        "eps (pixel values, log scale; 0 is clean)",
        "top-1 accuracy (%)",
        "step_ll",
        "iter_ll",
        "Baseline",
        "Adv. training",
    ):
        assert f">{label}<" in text
    height, width, _ = matplotlib.image.imread(png).shape
    assert width > height > 300
    assert dict(matplotlib.rcParams) == before


def test_the_same_records_give_the_same_svg(records: list[Record], tmp_path: Path) -> None:
    texts = [save_figure(robustness_figure(records), tmp_path / name)[0].read_text() for name in "ab"]
    assert texts[0] == texts[1]


def test_top_5(records: list[Record]) -> None:
    axes = robustness_figure(records, top=5).axes[0]
    assert axes.get_ylabel() == "top-5 accuracy (%)"
    assert list(axes.containers[0].lines[0].get_ydata()) == pytest.approx([99, 99, 99, 99])


def test_a_model_without_records_of_an_attack_is_in_the_legend_all_the_same(make_record: MakeRecord) -> None:
    records = [make_record("a", "fgsm", 2.0, 900), make_record("b", "step_ll", 2.0, 900)]
    [legend] = robustness_figure(records).legends
    assert [text.get_text() for text in legend.get_texts()] == ["a", "b"]


def test_refuses(make_record: MakeRecord) -> None:
    clean, attacked = make_record("a", "clean", 0.0, 9), make_record("a", "fgsm", 2.0, 9)
    with pytest.raises(ValueError, match="no adversarial records"):
        robustness_figure([clean])
    with pytest.raises(ValueError, match="top 5 was not measured"):
        robustness_figure([clean, attacked], top=5)
    with pytest.raises(ValueError, match="different images"):
        robustness_figure([clean, make_record("b", "fgsm", 2.0, 9, images="other")])
