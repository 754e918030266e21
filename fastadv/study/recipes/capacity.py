"""Figures 1 and 4: how the ratio of adversarial to clean accuracy depends on the number of filters."""

from __future__ import annotations

import itertools
import math

from fastadv.evaluate.figures import draw_line, legend_below, panels_of
from fastadv.evaluate.intervals import quantile
from fastadv.evaluate.tables import INTERVALS, Cell, Table
from fastadv.study.comparisons import Quantity, quotient
from fastadv.study.layout import TITLES, fraction, gradient_notes, images_note, tops_of
from fastadv.study.plan import Network, Plot, Robustness, Shown, Study
from fastadv.study.results import Results
from fastadv.study.scales import Scale

ATTACKS = ("step_ll", "iter_ll", "iter_basic")


def networks(scale: Scale) -> dict[tuple[str, float], Network]:
    """By training, "standard" or "adversarial", and rho."""
    made = {}
    for rho in scale.widths:
        changes = {} if rho == 1 else {"model.options.width": rho * scale.base.model.options.get("width", 1.0)}
        made["standard", rho] = scale.standard(f"rho = {rho:g}, standard", changes)
        made["adversarial", rho] = scale.adversarial(f"rho = {rho:g}, adv.", changes)
    return made


def evaluations(scale: Scale) -> list[Robustness]:
    """One sweep."""
    return scale.sweep(networks(scale).values(), ATTACKS)


def accuracy_ratio(results: Results, network: Network, attack: str, eps: float, top: int = 1) -> Quantity:
    """Accuracy on adversarial images by that on the same images when clean.

    Raises:
        NotMeasured: a record is missing.
    """
    return quotient(results.accuracy(network, attack, eps, top), results.clean(network, top, beside=attack, eps=eps))


def show(scale: Scale, results: Results) -> Shown:
    """Six panels for top 1 and for top 5, and what each six show as a table."""
    tops = tops_of(scale)
    return Shown(
        {f"capacity-top{top}": _table(scale, results, top) for top in tops},
        {f"capacity-top{top}": _plot(scale, results, top) for top in tops},
    )


def _plot(scale: Scale, results: Results, top: int) -> Plot:
    """Rows are methods and columns kinds of training, as in the paper; two panels a row."""
    figure, panels = panels_of(2 * len(ATTACKS), lines=len(scale.eps), columns=2)
    places = [(attack, training) for attack in ATTACKS for training in ("standard", "adversarial")]
    for (attack, training), axes in zip(places, panels, strict=True):
        for index, eps in enumerate(scale.eps):
            subjects = {rho: networks(scale)[training, rho] for rho in scale.widths}
            ratios = {rho: accuracy_ratio(results, subject, attack, eps, top) for rho, subject in subjects.items()}
            points = [(rho, found(quantile())) for rho, found in ratios.items()]
            draw_line(axes, f"eps = {eps:g}", points, index, len(scale.eps), factor=1)
        axes.set(title=f"{TITLES[attack]}, {training} training", ylim=(-0.03, 1.13))
        axes.set_xticks(scale.widths, labels=[f"{rho:g}" for rho in scale.widths])
        axes.grid(alpha=0.3)
    for axes in panels[::2]:
        axes.set_ylabel(f"top-{top} adv. / clean")
    for axes in panels[-2:]:
        axes.set_xlabel("rho (number of filters)")
    legend_below(figure, panels[0])
    what = f"Adversarial by clean accuracy, top {top}, against the number of filters: the ratios of the table"
    return Plot(figure, f"{what}, with 95 % intervals.")


def _table(scale: Scale, results: Results, top: int) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for attack in ATTACKS:
        for (training, rho), network in networks(scale).items():
            cells: list[Cell] = [fraction(results.clean(network, top, beside=attack, eps=scale.eps[0]))]
            for eps in scale.eps:
                found = accuracy_ratio(results, network, attack, eps, top)(quantile())
                known = not math.isnan(found.value)  # of a network that gets no clean image right it is not
                cells.append(f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]" if known else None)
            rows.append((TITLES[attack], training, f"{rho:g}", *cells))
    header = ("Adv. method", "Training", "rho", "Clean", *(f"eps = {eps:g}" for eps in scale.eps))
    network = networks(scale)["standard", scale.widths[0]]
    records = [results.record(network, attack, scale.eps[0]) for attack in ATTACKS]
    ratios = f"Ratio of top-{top} accuracy on adversarial to that on the same images when clean, with its 95 % interval"
    if top > 1:
        ratios += ", wider than need be: which images are right at top 5 is not recorded"
    notes = (
        f"{ratios}.",
        f"{images_note(records)}. {INTERVALS}",
        *gradient_notes(scale, results, itertools.product(networks(scale).values(), ATTACKS)),
    )
    return Table(f"Capacity and robustness, top {top}", header, tuple(rows), labels=3, notes=notes)


STUDY = Study("capacity", "Influence of model capacity", "Figures 1 and 4", evaluations, show)
