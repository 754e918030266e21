"""The tables and the figure of a card."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastadv.evaluate.card.card import Card
from fastadv.evaluate.figures import draw_line, eps_axis, escape_label, legend_below, panels_of, set_title
from fastadv.evaluate.intervals import Estimate, Proportion
from fastadv.evaluate.records import CLEAN, Record
from fastadv.evaluate.tables import INTERVALS, Cell, Table, about_images, images_of, note_on_shown, notes_on_gradients
from fastadv.utils.text import counted, duration

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WORST = "worst case"


def accuracy_table(card: Card, model: str) -> Table:
    """Make a table with a row for clean images, each attack and the worst case, and a column for each eps."""
    sizes = card.sizes
    rows: list[tuple[Cell, ...]] = [(CLEAN, card.accuracy(model, CLEAN, 0.0), *[None] * len(sizes))]
    rows += [(attack, None, *(card.accuracy(model, attack, eps) for eps in sizes)) for attack in card.attacks]
    rows.append((WORST, None, *(card.worst_case(model, eps) for eps in sizes)))
    bold = frozenset((len(rows) - 1, column) for column in range(2, 2 + len(sizes)))
    header = ("Attack", "eps = 0", *(f"eps = {eps:g}" for eps in sizes))
    own = [record for record in card.records if record.model == model]
    about = (("Model", model), *about_images(own[0]))
    return Table(f"{model}: top-1 accuracy", header, tuple(rows), 1, _notes(card, own), bold, about)


def _notes(card: Card, records: list[Record]) -> tuple[str, ...]:
    return (
        f"Over {images_of(records[0])}; eps in pixel values of [0, 255].",
        INTERVALS if card.until is None else _about_stop(card),
        "Worst case: correct when clean and under each attack of this eps, image by image.",
        "An image counts as misclassified as soon as one iterate of an attack is.",
        *notes_on_gradients(records),
        *note_on_shown([(record.model, record.space, record.shown) for record in records]),
    )


def _about_stop(card: Card) -> str:
    first = card.records[0]
    within = f"within {card.until:g} points"
    cases = [card.worst_case(model, eps) for model in card.models for eps in card.sizes]
    if all(max(case.value - case.low, case.high - case.value) <= (card.until or 0) / 100 for case in cases):
        stopped = f"until the interval of the worst case at each eps was {within}"
    else:
        stopped = f"up to the limit, where not all intervals of the worst case are {within}"
    return (
        f"In brackets 95 % confidence intervals for the accuracy on all {first.total:,} images, which hold at all "
        f"times (Waudby-Smith and Ramdas, 2020); images were drawn at random {stopped}."
    )


def cost_table(card: Card, model: str) -> Table:
    """Make a table of what each attack asked of a network."""
    own = [record for record in card.records if record.model == model]
    rows = [_cost(attack, [record for record in own if record.attack == attack]) for attack in (CLEAN, *card.attacks)]
    rows.append(_cost("total", own))
    n = own[0].n
    notes = (
        f"For {counted(n, 'image')} at {counted(len(card.sizes), 'size')}. A gradient is a forward and a backward pass "
        "of a single image; forward passes are those without a gradient, that which judges the result among them.",
        f"The checks took {duration(card.check_seconds)} besides, on {counted(card.checked, 'image')} of each network.",
        _provenance(own[0]),
    )
    return Table(
        f"{model}: what was asked of it", ("Attack", "gradients", "forward passes", "time"), tuple(rows), 1, notes
    )


def _provenance(record: Record) -> str:
    """What one needs to tell whether a number is about the same network and program."""
    versions = ", ".join(f"{name} {version}" for name, version in record.versions.items())
    return (
        f"The network's SHA-256 begins with {record.checkpoint[:12]}; its input is {record.space}. Seed {record.seed}, "
        f"device {record.device}, {versions}."
    )


@dataclass(frozen=True)
class Asked:
    """What was asked of a network: single images, and None if it was not counted."""

    gradients: int | None
    forwards: int | None
    seconds: float


def asked_for(records: Sequence[Record]) -> Asked:
    """Sum up what these records took; each image was also classified once for each."""
    gradients, queries = (_sum(getattr(record, field) for record in records) for field in ("gradients", "queries"))
    forwards = None if queries is None else queries + sum(record.n for record in records)
    return Asked(gradients, forwards, sum(record.seconds for record in records))


def _cost(name: str, records: Sequence[Record]) -> tuple[Cell, ...]:
    asked = asked_for(records)
    counts = (None if count is None else f"{count:,}" for count in (asked.gradients, asked.forwards))
    return (name, *counts, duration(asked.seconds))


def _sum(values: Iterable[float | None]) -> int | None:
    """The sum; None if one of them was not counted."""
    given = list(values)
    return None if None in given else round(sum(one for one in given if one is not None))


def card_figure(card: Card) -> Figure:
    """Draw accuracy against eps: a panel for each network, a line for each attack and the worst case."""
    lines = [*card.attacks, WORST]
    figure, panels = panels_of(len(card.models), lines=len(lines))
    for model, axes in zip(card.models, panels, strict=True):
        clean = (0.0, _estimate(card.accuracy(model, CLEAN, 0.0)))
        for index, name in enumerate(lines):
            found = [
                card.worst_case(model, eps) if name == WORST else card.accuracy(model, name, eps) for eps in card.sizes
            ]
            points = list(zip(card.sizes, map(_estimate, found), strict=True))
            draw_line(axes, name, [clean, *points], index, len(lines))
        eps_axis(axes, card.sizes)
        axes.set(title=escape_label(model), ylim=(-3, 103), ylabel="top-1 accuracy (%)")
    first = card.records[0]
    what = f"Suite {card.suite}: accuracy with 95 % confidence intervals"
    set_title(figure, what, images_of(first), first.seed)
    legend_below(figure, panels[:1])
    return figure


def _estimate(found: Proportion) -> Estimate:
    return Estimate(found.value, found.low, found.high)
