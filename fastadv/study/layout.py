"""Tables and figures shared by the studies: the paper's numbers next to ours, and curves over eps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from fastadv.evaluate.figures import PANELS_PER_ROW, draw_line, eps_axis, fit_axis, legend_below, panels_of, set_title
from fastadv.evaluate.intervals import Proportion, proportion, quantile, wilson
from fastadv.evaluate.records import Record
from fastadv.evaluate.tables import INTERVALS, Cell, Table, notes_on_gradients
from fastadv.study import paper
from fastadv.study.comparisons import gain
from fastadv.study.networks import Network
from fastadv.study.plan import Plot, StudyOutput
from fastadv.study.results import Results, Share
from fastadv.study.scales import Scale

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HERE, PAPER = "here", "paper"

# Names of the attacks in tables, figures and claims.
TITLES = {
    "fgsm": "FGSM",
    "fgsm_pred": "FGSM-pred",
    "fast_entropy": "fast entropy",
    "fast_grad_l2": "fast grad. L2",
    "fast_grad_linf": "fast grad. Linf",
    "step_ll": "step l.l.",
    "step_rnd": "step rnd.",
    "random_sign": "sign of random perturbation",
    "random_normal": "random normal perturbation",
    "iter_ll": "iter. l.l.",
    "iter_basic": "iter. basic",
}


@dataclass(frozen=True)
class Row:
    """A table row: a network under an attack, and the corresponding row of the paper.

    Args:
        labels: the first cells.
        network: the network.
        attack: the attack.
        table: the paper's table, such as "table1"; "" if the paper has none.
        row: the key of the row in that table.
    """

    labels: tuple[str, ...]
    network: Network
    attack: str
    table: str = ""
    row: str | int = ""


def fraction(share: Share) -> Proportion:
    """A share as shown in tables and figures."""
    return proportion(share.successes, share.n)


def accuracy_table(
    scale: Scale,
    results: Results,
    rows: Sequence[Row],
    *,
    caption: str,
    labels: tuple[str, ...],
    tops: Sequence[int] = (1, 5),
    notes: Sequence[str] = (),
    bold_ties: bool = False,
) -> Table:
    """Accuracy on clean images and at each eps; the paper's numbers follow below each row.

    Args:
        scale: the scale of the study.
        results: the measurements.
        rows: the rows.
        caption: the caption.
        labels: headings of the first columns.
        tops: 1, or 1 and 5.
        notes: notes below the table, before those that all tables have.
        bold_ties: set the best of each column and those tied with it in bold (Table 5), among rows of one attack.

    Raises:
        NotMeasured: if a record is missing.
    """
    lines: list[tuple[Cell, ...]] = []
    ours: dict[str, list[int]] = {}  # by attack
    for row in rows:
        for top in tops:
            ours.setdefault(row.attack, []).append(len(lines))
            shares = accuracies(scale, results, row.network, row.attack, top)
            lines.append((*row.labels, f"top {top}", HERE, *map(fraction, shares)))
            published = paper.accuracies(row.table, row.row, top) if row.table else None
            if published:
                lines.append((*row.labels, f"top {top}", PAPER, *(f"{value:.1f}%" for value in published)))
    header = (*labels, "Metric", "", "Clean", *_eps_headings(scale))
    bold = _ties(lines, ours, clean=len(labels) + 2) if bold_ties else frozenset()
    return Table(
        caption,
        header,
        tuple(lines),
        labels=len(labels) + 2,
        notes=(*notes, *_notes(scale, results, rows)),
        bold=bold,
    )


def accuracies(scale: Scale, results: Results, network: Network, attack: str, top: int = 1) -> list[Share]:
    """Accuracy on clean images, then at each eps, on the same images.

    Raises:
        NotMeasured: if a record is missing.
    """
    clean = results.clean(network, top, images_of=attack, eps=scale.eps[0])
    return [clean, *(results.accuracy(network, attack, eps, top) for eps in scale.eps)]


def _eps_headings(scale: Scale) -> list[str]:
    if tuple(scale.eps) == paper.EPS:
        return [f"eps = {eps:g}" for eps in scale.eps]
    return [f"eps = {eps:g} ({theirs:g})" for eps, theirs in zip(scale.eps, paper.EPS, strict=True)]


def images_note(records: Iterable[Record]) -> str:
    """How many images the attacks of these records were measured on."""
    attacks: dict[int, list[str]] = {}
    for record in records:
        if TITLES[record.attack] not in attacks.setdefault(record.n, []):
            attacks[record.n].append(TITLES[record.attack])
    counts = [f"{n:,}" + (f" ({', '.join(names)})" if len(attacks) > 1 else "") for n, names in attacks.items()]
    return f"First {' and '.join(counts)} of {record.total:,} {record.split} images of {record.dataset}"


def _notes(scale: Scale, results: Results, rows: Sequence[Row]) -> list[str]:
    records = [results.record(row.network, row.attack, scale.eps[0]) for row in rows]
    notes = [f"{images_note(records)}. {INTERVALS}"]
    notes += gradient_notes(scale, results, [(row.network, row.attack) for row in rows])
    if tuple(scale.eps) != paper.EPS:
        notes.append("Headings give eps in pixel values, and in brackets the eps of the paper that it stands in for.")
    return notes


def gradient_notes(scale: Scale, results: Results, attacked: Iterable[tuple[Network, str]]) -> tuple[str, ...]:
    """Notes on networks that look more robust than they are, with the attack."""
    records = [
        replace(results.record(network, attack, eps), model=network.name)
        for network, attack in attacked
        for eps in scale.eps
    ]
    return notes_on_gradients(records)


def _ties(lines: Sequence[Sequence[Cell]], ours: Mapping[str, list[int]], clean: int) -> frozenset[tuple[int, int]]:
    """The best cell of each column and those whose 95 % intervals overlap with its own, as in the paper's Table 5.

    Accuracies under different attacks are not comparable: right of the column ``clean``, each attack has its own best.
    """
    groups = [(clean, [index for indices in ours.values() for index in indices])]
    groups += [(column, indices) for column in range(clean + 1, len(lines[0])) for indices in ours.values()]
    bold = set()
    for column, indices in groups:
        cells = {index: cell for index in indices if isinstance(cell := lines[index][column], Proportion)}
        best = max(cells.values(), key=lambda cell: cell.value)
        for index, cell in cells.items():
            if cell.high >= best.low:
                bold.add((index, column))
    return frozenset(bold)


@dataclass(frozen=True)
class Panel:
    """Curves over eps.

    Args:
        title: the title of the panel.
        lines: label, network and attack of each curve.
        first_style: the style of the first line, if one network is shown under several attacks.
    """

    title: str
    lines: Sequence[tuple[str, Network, str]]
    first_style: int = 0


def accuracy_plot(
    scale: Scale,
    results: Results,
    panels: Sequence[Panel],
    *,
    subject: str,
    reference: Network | None = None,
    columns: int = PANELS_PER_ROW,
) -> Plot:
    """Top-1 accuracy over eps with 95 % intervals; eps = 0 is clean.

    Args:
        scale: the scale of the study.
        results: the measurements.
        panels: the panels.
        subject: what the figure shows, for the caption.
        reference: a network to compare the others with: each panel gets a second one with the differences to it.
        columns: number of panels in a row.

    Raises:
        NotMeasured: if a record is missing.
    """
    number = len(panels) * (1 if reference is None else 2)
    figure, all_axes = panels_of(number, lines=len(panels[0].lines), columns=columns)
    for panel, axes in zip(panels, all_axes, strict=False):
        styles = _styles(scale, panel)
        for place, (label, network, attack) in enumerate(panel.lines):
            shares = _shares(scale, results, network, attack)
            points = [(eps, wilson(found.successes, found.n)) for eps, found in shares]
            draw_line(axes, label, points, place, len(styles), style=styles[place])
        eps_axis(axes, scale.eps)
        axes.set(title=panel.title, ylim=(-3, 103))
    for axes in all_axes[: len(panels) : columns]:
        axes.set_ylabel("top-1 accuracy (%)")
    legend_below(figure, all_axes)
    records = [results.record(network, attack, scale.eps[0]) for panel in panels for _, network, attack in panel.lines]
    what = f"{subject}: top-1 accuracy with 95 % intervals"
    set_title(figure, what, images_note(records), records[0].seed)
    caption = f"{subject}: top-1 accuracy against eps with 95 % intervals; at eps = 0 on clean images."
    if reference is not None:
        for panel, axes in zip(panels, all_axes[len(panels) :], strict=True):
            _draw_differences(scale, results, panel, reference, axes)
        fit_axis(all_axes[len(panels) :], least=1)
        all_axes[len(panels)].set_ylabel("difference (points)")
        caption += " The other panels show differences in accuracy, compared image by image."
    return Plot(figure, f"{caption} Points at the same eps are drawn side by side.")


def _draw_differences(scale: Scale, results: Results, panel: Panel, reference: Network, axes: Axes) -> None:
    """The difference in accuracy between each network and the reference."""
    styles = _styles(scale, panel)
    for place, (label, network, attack) in enumerate(panel.lines):
        if network == reference:
            continue
        both = zip(*(_shares(scale, results, one, attack) for one in (network, reference)), strict=True)
        points = [(eps, gain(found, base)(quantile())) for (eps, found), (_, base) in both]
        draw_line(axes, label, points, place, len(styles), style=styles[place])
    eps_axis(axes, scale.eps)
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set_title(f"{panel.title}, minus {reference.name}")


def _shares(scale: Scale, results: Results, network: Network, attack: str) -> list[tuple[float, Share]]:
    """Pairs of eps and top-1 accuracy; clean images at eps = 0."""
    return list(zip((0.0, *scale.eps), accuracies(scale, results, network, attack), strict=True))


def _styles(scale: Scale, panel: Panel) -> list[int]:
    """The style of each line: the two base networks look the same in every figure, others follow their order."""
    networks = [network.id for _, network, _ in panel.lines]
    if len(set(networks)) < len(networks):  # one network under several attacks
        return list(range(panel.first_style, panel.first_style + len(networks)))
    order = [scale.standard("").id, scale.adversarial("").id]
    order += [one for one in networks if one not in order]
    return [order.index(one) for one in networks]


def table_and_curves(
    scale: Scale,
    results: Results,
    networks: Mapping[Any, Network],
    attacks: Sequence[str],
    *,
    name: str,
    caption: str,
    label: str,
    table: str = "",
    tops: Sequence[int] = (1,),
    notes: Sequence[str] = (),
    reference: Any = None,
) -> StudyOutput:
    """Every network under every attack: a table, and a panel of curves for each attack.

    Args:
        scale: the scale of the study.
        results: the measurements.
        networks: the networks, keyed by the paper's rows; with several attacks a row is named by attack and key.
        attacks: the attacks.
        name: file name of the table and the figure, without suffix.
        caption: caption of the table.
        label: heading of the column with the networks' names.
        table: the paper's table, as in :class:`Row`; "" for none.
        tops: as in :func:`accuracy_table`.
        notes: as in :func:`accuracy_table`.
        reference: key of the network that extra panels compare the others with; None for no such panels.

    Raises:
        NotMeasured: if a record is missing.
    """
    several = len(attacks) > 1
    rows = [
        Row(
            (TITLES[attack], network.name) if several else (network.name,),
            network,
            attack,
            table,
            f"{attack} {key}" if several else key,
        )
        for attack in attacks
        for key, network in networks.items()
    ]
    labels = ("Adv. method", label) if several else (label,)
    panels = [Panel(TITLES[attack], [(one.name, one, attack) for one in networks.values()]) for attack in attacks]
    compared_with = None if reference is None else networks[reference]
    return StudyOutput(
        {name: accuracy_table(scale, results, rows, caption=caption, labels=labels, tops=tops, notes=notes)},
        {
            name: accuracy_plot(
                scale, results, panels, subject=f"{caption}, the rows of the table", reference=compared_with
            )
        },
    )


def tops_of(scale: Scale) -> tuple[int, ...]:
    """Top 1 and top 5; top 1 alone for fewer than six classes."""
    return (1, 5) if scale.classes > 5 else (1,)
