"""How studies are shown: the paper's tables with its numbers beside ours, and curves over eps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastadv.evaluate.figures import draw_line, eps_axis, legend_below, panels_of
from fastadv.evaluate.records import Record
from fastadv.evaluate.statistics import Proportion, proportion, wilson
from fastadv.evaluate.tables import Cell, Table, note_on_ends
from fastadv.study import paper
from fastadv.study.plan import Network, Plot, Shown
from fastadv.study.results import Results, Share
from fastadv.study.scales import Scale

HERE, PAPER = "here", "paper"

# Of the attacks, in every table, figure and claim.
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
    """A network under an attack, and where the paper has the same.

    Args:
        labels: the first cells.
        network: whose accuracy it is.
        attack: on what.
        table: of the paper, such as "table1"; "" where the paper has none.
        row: of that table.
    """

    labels: tuple[str, ...]
    network: Network
    attack: str
    table: str = ""
    row: str | int = ""


def fraction(share: Share) -> Proportion:
    """As tables and figures show it."""
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
    """Accuracy on clean images and at each eps, each row with the paper's below it.

    Args:
        scale: the scale.
        results: what was measured.
        rows: what to show.
        caption: above the table.
        labels: headings of the first cells.
        tops: 1, or 1 and 5.
        notes: below the table, before what all tables say.
        bold_ties: set the best of each column in bold, and what is tied with it (Table 5), among rows of one attack.

    Raises:
        NotMeasured: a record is missing.
    """
    lines: list[tuple[Cell, ...]] = []
    ours: dict[str, list[int]] = {}  # by attack
    for row in rows:
        for top in tops:
            ours.setdefault(row.attack, []).append(len(lines))
            shares = [_clean(results, row, scale, top)]
            shares += [results.accuracy(row.network, row.attack, eps, top) for eps in scale.eps]
            lines.append((*row.labels, f"top {top}", HERE, *map(fraction, shares)))
            published = paper.accuracies(row.table, row.row, top) if row.table else None
            if published:
                lines.append((*row.labels, f"top {top}", PAPER, *(f"{value:.1f}%" for value in published)))
    header = (*labels, "Metric", "", "Clean", *_eps_heads(scale))
    bold = _ties(lines, ours, clean=len(labels) + 2) if bold_ties else frozenset()
    return Table(
        caption,
        header,
        tuple(lines),
        labels=len(labels) + 2,
        notes=(*notes, *_notes(scale, results, rows, lines)),
        bold=bold,
    )


def _clean(results: Results, row: Row, scale: Scale, top: int) -> Share:
    return results.clean(row.network, top, beside=row.attack, eps=scale.eps[0])


def _eps_heads(scale: Scale) -> list[str]:
    if tuple(scale.eps) == paper.EPS:
        return [f"eps = {eps:g}" for eps in scale.eps]
    return [f"eps = {eps:g} ({theirs:g})" for eps, theirs in zip(scale.eps, paper.EPS, strict=True)]


def images_note(records: Iterable[Record]) -> str:
    """On how many images the attacks of these records were measured."""
    attacks: dict[int, list[str]] = {}
    for record in records:
        if TITLES[record.attack] not in attacks.setdefault(record.n, []):
            attacks[record.n].append(TITLES[record.attack])
    counts = [f"{n:,}" + (f" ({', '.join(names)})" if len(attacks) > 1 else "") for n, names in attacks.items()]
    return f"First {' and '.join(counts)} of {record.total:,} {record.split} images of {record.dataset}"


def _notes(scale: Scale, results: Results, rows: Sequence[Row], lines: Sequence[Sequence[Cell]]) -> list[str]:
    records = [results.record(row.network, row.attack, scale.eps[0]) for row in rows]
    notes = [f"{images_note(records)}; ±: 95 % interval.", *note_on_ends(lines, [record.n for record in records])]
    if tuple(scale.eps) != paper.EPS:
        notes.append("eps in pixel values; in brackets the paper's, in whose place it stands.")
    return notes


def _ties(lines: Sequence[Sequence[Cell]], ours: Mapping[str, list[int]], clean: int) -> frozenset[tuple[int, int]]:
    """Per column the best and those whose 95 % intervals reach its own, the paper's footnote to Table 5.

    Accuracies under different attacks do not compare: after the column ``clean``, rows of each attack by themselves.
    """
    alike = [(clean, [index for indices in ours.values() for index in indices])]
    alike += [(column, indices) for column in range(clean + 1, len(lines[0])) for indices in ours.values()]
    bold = set()
    for column, indices in alike:
        cells = {index: cell for index in indices if isinstance(cell := lines[index][column], Proportion)}
        best = max(cells.values(), key=lambda cell: cell.value)
        for index, cell in cells.items():
            if cell.value + cell.half_width >= best.value - best.half_width:
                bold.add((index, column))
    return frozenset(bold)


@dataclass(frozen=True)
class Panel:
    """Curves over eps.

    Args:
        title: above it.
        lines: label, network and attack of each curve.
    """

    title: str
    lines: Sequence[tuple[str, Network, str]]


def accuracy_plot(scale: Scale, results: Results, panels: Sequence[Panel], *, of: str) -> Plot:
    """Top-1 accuracy against eps with its 95 % interval; clean at eps = 0.

    Args:
        scale: the scale.
        results: what was measured.
        panels: what to show.
        of: what that is, as the caption says it.

    Raises:
        NotMeasured: a record is missing.
    """
    figure, all_axes = panels_of(len(panels), lines=len(panels[0].lines))
    for panel, axes in zip(panels, all_axes, strict=True):
        for index, (label, network, attack) in enumerate(panel.lines):
            shares = [(0.0, results.clean(network, beside=attack, eps=scale.eps[0]))]
            shares += [(eps, results.accuracy(network, attack, eps)) for eps in scale.eps]
            draw_line(axes, label, [(eps, wilson(found.successes, found.n)) for eps, found in shares], index)
        eps_axis(axes, scale.eps)
        axes.set(title=panel.title, ylim=(-3, 103))
    all_axes[0].set_ylabel("top-1 accuracy (%)")
    legend_below(figure, all_axes[0])
    return Plot(figure, f"{of}: top-1 accuracy against eps with 95 % intervals; at eps = 0 on clean images.")


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
) -> Shown:
    """Every network under each attack: a table, and a panel of curves for each attack.

    Args:
        scale: the scale.
        results: what was measured.
        networks: by the paper's rows: a key, or with several attacks attack and key.
        attacks: on each.
        name: of both files.
        caption: of the table.
        label: heading of the networks' names.
        table: of the paper, as for :class:`Row`, "" for none.
        tops: as for :func:`accuracy_table`, like notes.

    Raises:
        NotMeasured: a record is missing.
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
    return Shown(
        {name: accuracy_table(scale, results, rows, caption=caption, labels=labels, tops=tops, notes=notes)},
        {name: accuracy_plot(scale, results, panels, of=f"{caption}, the rows of the table")},
    )


def tops_of(scale: Scale) -> tuple[int, ...]:
    """Top 5 needs six classes."""
    return (1, 5) if scale.classes > 5 else (1,)
