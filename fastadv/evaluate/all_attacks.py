"""One table of all attacks that models were measured under, with the worst case per image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import attrgetter

import numpy as np

from fastadv.evaluate.attack_specs import may_stop_early
from fastadv.evaluate.intervals import Proportion, proportion
from fastadv.evaluate.records import CLEAN, Record
from fastadv.evaluate.tables import (
    INTERVALS,
    Cell,
    Table,
    about_images,
    check_same_images,
    images_of,
    norm_of,
    note_on_shown,
)
from fastadv.utils.text import printable

_Cells = Mapping[tuple[str, float], Record]


def all_attacks_table(records: Sequence[Record]) -> Table:
    """Make a table with a row for each attack and size, a column for each model, and the worst case at each size.

    The worst case counts the images that a model classifies correctly when clean and under each of the attacks of that
    size in one norm; it is left out for a model that lacks one of them.

    Args:
        records: of any number of models and attacks on the same images, one for each cell.

    Raises:
        ValueError: if records are of different images.
    """
    check_same_images(records, attrgetter("model"))
    models = list(dict.fromkeys(record.model for record in records))
    cells = {model: {(r.attack, r.eps): r for r in records if r.model == model} for model in models}
    sizes = sorted({_size(record) for record in records if record.attack != CLEAN})
    rows: list[tuple[Cell, ...]] = [(CLEAN, "", *(_accuracy(cells[model].get((CLEAN, 0.0))) for model in models))]
    bold = set()
    for size in sizes:
        in_l2, eps = size
        shown = f"{eps:g} in L2" if in_l2 else f"{eps:g}"
        attacks = list(dict.fromkeys(r.attack for r in records if r.attack != CLEAN and _size(r) == size))
        for attack in attacks:
            rows.append((attack, shown, *(_accuracy(cells[model].get((attack, eps))) for model in models)))
        if len(attacks) > 1:
            bold |= {(len(rows), 2 + column) for column in range(len(models))}
            rows.append(("worst case", shown, *(_worst_case(cells[model], attacks, eps) for model in models)))
    notes = (
        f"Top 1 over {images_of(records[0])}; eps in pixel values of [0, 255], as each attack bounds it. {INTERVALS}",
        "Worst case: correct when clean and under each attack of this eps and norm, image by image.",
        *_note_on_judging(records),
        *note_on_shown([(record.model, record.space, record.shown) for record in records]),
    )
    about = about_images(records[0])
    header = ("Attack", "eps", *models)
    return Table("Accuracy under all attacks", header, tuple(rows), 2, notes, frozenset(bold), about)


def _note_on_judging(records: Sequence[Record]) -> tuple[str, ...]:
    """Say under which attacks any iterate counts, and under which the last one alone though any could."""
    any_counts = dict.fromkeys(printable(record.attack) for record in records if record.any_iterate)
    last_counts = dict.fromkeys(
        printable(record.attack) for record in records if may_stop_early(record.attack) and not record.any_iterate
    )
    notes = []
    if any_counts:
        notes.append(f"Under {', '.join(any_counts)}, an image counts as misclassified as soon as one iterate is.")
    if last_counts:
        notes.append(f"Under {', '.join(last_counts)}, the last iterate alone counts.")
    return tuple(notes)


def _size(record: Record) -> tuple[bool, float]:
    """Whether the attack's eps bounds the L2 norm, and eps: no worst case is over balls of two norms."""
    return norm_of(record) == "l2", record.eps


def _accuracy(record: Record | None) -> Proportion | None:
    return None if record is None else proportion(record.top1, record.n)


def _worst_case(cells: _Cells, attacks: Sequence[str], eps: float) -> Proportion | None:
    found = [cells.get((CLEAN, 0.0)), *(cells.get((attack, eps)) for attack in attacks)]
    measured = [record for record in found if record is not None]
    if len(measured) < len(found):
        return None
    correct = np.logical_and.reduce([record.hits for record in measured])  # [n]
    return proportion(int(correct.sum()), len(correct))
