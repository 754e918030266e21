"""Figures 1 and 4: the ratio of adversarial to clean accuracy against the number of filters."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from fastadv.evaluate.figures import draw_line, fit_axis, legend_below, panels_of
from fastadv.evaluate.intervals import quantile
from fastadv.evaluate.tables import INTERVALS, Cell, Table
from fastadv.study.checks import at_eps, clean_gain
from fastadv.study.comparisons import Quantity, difference, quotient, weighted_sum
from fastadv.study.evaluations import Robustness
from fastadv.study.layout import TITLES, fraction, gradient_notes, images_note, tops_of
from fastadv.study.networks import Network
from fastadv.study.plan import Plot, Study, StudyOutput
from fastadv.study.results import Results
from fastadv.study.scales import Scale
from fastadv.study.verdicts import Check, Claim

ATTACKS = ("step_ll", "iter_ll", "iter_basic")


def networks(scale: Scale) -> dict[tuple[str, float], Network]:
    """Networks keyed by training, "standard" or "adversarial", and rho."""
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
    """Accuracy on adversarial images divided by accuracy on the same images without the attack.

    Raises:
        NotMeasured: if a record is missing.
    """
    return quotient(results.accuracy(network, attack, eps, top), results.clean(network, top, images_of=attack, eps=eps))


def show(scale: Scale, results: Results) -> StudyOutput:
    """Six panels for top 1 and six for top 5, with a table for each."""
    tops = tops_of(scale)
    return StudyOutput(
        {f"capacity-top{top}": _table(scale, results, top) for top in tops},
        {f"capacity-top{top}": _plot(scale, results, top) for top in tops},
    )


def _plot(scale: Scale, results: Results, top: int) -> Plot:
    """Rows are methods and columns kinds of training, as in the paper."""
    figure, panels = panels_of(2 * len(ATTACKS), lines=len(scale.eps), columns=2)
    places = [(attack, training) for attack in ATTACKS for training in ("standard", "adversarial")]
    for (attack, training), axes in zip(places, panels, strict=True):
        for index, eps in enumerate(scale.eps):
            subjects = {rho: networks(scale)[training, rho] for rho in scale.widths}
            ratios = {rho: accuracy_ratio(results, subject, attack, eps, top) for rho, subject in subjects.items()}
            points = [(rho, found(quantile())) for rho, found in ratios.items()]
            draw_line(axes, f"eps = {eps:g}", points, index, len(scale.eps), factor=1)
        axes.set_title(f"{TITLES[attack]}, {training} training")
        axes.set_xticks(scale.widths, labels=[f"{rho:g}" for rho in scale.widths])
        axes.grid(alpha=0.3)
        fit_axis([axes], least=0.01)  # an axis from 0 to 1 would not tell ratios apart that are all nearly 1
    for axes in panels[::2]:
        axes.set_ylabel(f"top-{top} adv. / clean")
    for axes in panels[-2:]:
        axes.set_xlabel("rho (number of filters)")
    legend_below(figure, panels[:1], x="rho")
    what = f"Ratio of adversarial to clean accuracy, top {top}, against the number of filters: the rows of the table"
    return Plot(figure, f"{what}, with 95 % intervals. Each panel has a vertical axis of its own.")


def _table(scale: Scale, results: Results, top: int) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for attack in ATTACKS:
        for (training, rho), network in networks(scale).items():
            cells: list[Cell] = [fraction(results.clean(network, top, images_of=attack, eps=scale.eps[0]))]
            for eps in scale.eps:
                found = accuracy_ratio(results, network, attack, eps, top)(quantile())
                known = not math.isnan(found.value)  # not for a network that is right on no clean image
                cells.append(f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]" if known else None)
            rows.append((TITLES[attack], training, f"{rho:g}", *cells))
    header = ("Adv. method", "Training", "rho", "Clean", *(f"eps = {eps:g}" for eps in scale.eps))
    network = networks(scale)["standard", scale.widths[0]]
    records = [results.record(network, attack, scale.eps[0]) for attack in ATTACKS]
    ratios = f"Ratio of top-{top} accuracy on adversarial images to that on the same clean ones, with its 95 % interval"
    if top > 1:
        ratios += ", which is wider than necessary because records do not say which images are right at top 5"
    notes = (
        f"{ratios}.",
        f"{images_note(records)}. {INTERVALS}",
        *gradient_notes(scale, results, itertools.product(networks(scale).values(), ATTACKS)),
    )
    return Table(f"Capacity and robustness, top {top}", header, tuple(rows), labels=3, notes=notes)


STUDY = Study("capacity", "Influence of model capacity", "Figures 1 and 4", evaluations, show)


# --- what the paper claims --------------------------------------------------------------------------------------------


def _clean_grows(scale: Scale, results: Results) -> list[Check]:
    found, narrow, wide = networks(scale), scale.widths[0], scale.widths[-1]
    return [
        clean_gain(results, found[kind, wide], found[kind, narrow], f"{kind}, widest over narrowest", above=0)
        for kind in ("standard", "adversarial")
    ]


def _growth_slows(scale: Scale, results: Results) -> list[Check]:
    found, narrow, wide = networks(scale), scale.widths[0], scale.widths[-1]
    return [
        Check(
            f"clean, {kind}, rho = {narrow:g} to 1 over 1 to {wide:g}",
            weighted_sum(
                [(2, results.clean(found[kind, 1])), *((-1, results.clean(found[kind, end])) for end in (narrow, wide))]
            ),
            above=0,
        )
        for kind in ("standard", "adversarial")
    ]


def _ratio_grows(scale: Scale, results: Results, attack: str, sizes: Sequence[float]) -> list[Check]:
    """The widest adversarially trained network against the narrowest."""
    found, narrow, wide = networks(scale), scale.widths[0], scale.widths[-1]
    return [
        Check(
            f"{TITLES[attack]}, ratio at rho = {wide:g} over rho = {narrow:g} {at_eps(eps)}",
            difference(
                accuracy_ratio(results, found["adversarial", wide], attack, eps),
                accuracy_ratio(results, found["adversarial", narrow], attack, eps),
            ),
            above=0,
            unit="",
        )
        for eps in sizes
    ]


def _robustness_grows(scale: Scale, results: Results) -> list[Check]:
    return _ratio_grows(scale, results, "step_ll", scale.eps)


def _robustness_grows_iterative(scale: Scale, results: Results) -> list[Check]:
    return [
        check for attack in ("iter_ll", "iter_basic") for check in _ratio_grows(scale, results, attack, scale.eps[:2])
    ]


def _optimum_inside(scale: Scale, results: Results) -> list[Check]:
    """The best of the inner widths is chosen from the same records, hence ``best_of``."""
    eps = scale.eps[1]
    narrowest, *inner, widest = scale.widths
    found = {rho: networks(scale)["standard", rho] for rho in scale.widths}
    ratios = {rho: accuracy_ratio(results, network, "step_ll", eps) for rho, network in found.items()}
    best = max(inner, key=lambda rho: ratios[rho](quantile()).value)
    return [
        Check(
            f"ratio at rho = {best:g} over rho = {end:g} {at_eps(eps)}",
            difference(ratios[best], ratios[end]),
            above=0,
            unit="",
            best_of=len(inner),
        )
        for end in (narrowest, widest)
    ]


def _near_one(scale: Scale, results: Results) -> list[Check]:
    network = networks(scale)["adversarial", scale.widths[-1]]
    return [
        Check(
            f"ratio of the widest network under step l.l. {at_eps(eps)}",
            accuracy_ratio(results, network, "step_ll", eps),
            above=0.9,
            unit="",
        )
        for eps in scale.eps
    ]


def _never_near_one(scale: Scale, results: Results) -> list[Check]:
    found = networks(scale)
    return [
        Check(
            f"{TITLES[attack]}, ratio at rho = {rho:g} {at_eps(eps)}",
            accuracy_ratio(results, found["adversarial", rho], attack, eps),
            below=0.9,
            unit="",
        )
        for attack in ("iter_ll", "iter_basic")
        for rho in scale.widths
        for eps in scale.eps
    ]


CLAIMS = (
    Claim(
        "clean_grows",
        "capacity",
        "Section 4.3",
        "Clean accuracy grows with the number of filters; judged by comparing the widest and the narrowest network.",
        _clean_grows,
    ),
    Claim(
        "growth_slows",
        "capacity",
        "Section 4.3",
        "The growth of clean accuracy slows down with the number of filters; judged by comparing one doubling, to "
        "rho = 1, with the next.",
        _growth_slows,
        added_later=True,
    ),
    Claim(
        "robustness_grows",
        "capacity",
        "Figure 1",
        "The robustness of adversarially trained networks to step l.l. grows with their size; judged by comparing the "
        "widest and the narrowest.",
        _robustness_grows,
    ),
    Claim(
        "robustness_grows_iterative",
        "capacity",
        "Figure 1",
        "The trend remains under iterative methods, with exceptions; judged by comparing the widest and the narrowest "
        "network at the two smallest eps.",
        _robustness_grows_iterative,
    ),
    Claim(
        "optimum_inside",
        "capacity",
        "Section 4.3",
        "Among networks with standard training, neither the narrowest nor the widest is the most robust; judged under "
        "step l.l. at the second eps, by the most robust of the widths in between.",
        _optimum_inside,
    ),
    Claim(
        "near_one",
        "capacity",
        "Section 4.3",
        "With twice the filters, accuracy under one-step methods approaches clean accuracy; judged by a ratio above "
        "0.9 under step l.l., a bound chosen by us.",
        _near_one,
    ),
    Claim(
        "never_near_one",
        "capacity",
        "Section 4.3",
        "No adversarially trained network of any width is nearly as accurate under iterative methods as on clean "
        "images; judged by ratios below 0.9, a bound chosen by us.",
        _never_near_one,
    ),
)
