"""Tables and figures of transfer, made from records: the paper's Tables 4 and 6, and Figures 2 and 5."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from fastadv.evaluate.figures import draw_line, eps_axis, escape_label, legend_below, panels_of, set_title
from fastadv.evaluate.hits import FEWEST_CLASSES_FOR_TOP5
from fastadv.evaluate.intervals import proportion, wilson
from fastadv.evaluate.tables import (
    INTERVALS,
    Cell,
    Table,
    about_images,
    check_same_images,
    data_set_of,
    images_of,
    note_on_shown,
    note_on_top5,
    notes_on_gradients,
)
from fastadv.evaluate.transfer import TransferCounts, TransferRecord

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Title, and a function that returns the numerator and the denominator.
MEASURES: dict[str, tuple[str, Callable[[TransferCounts], tuple[int, int]]]] = {
    "rate": ("Transfer rate", lambda counts: (counts.transferred, counts.fooled)),
    "error": ("Error rate", lambda counts: (counts.wrong, counts.n)),
}
_WHAT = {
    "rate": "The share that the target misclassifies of the n images that the source classifies correctly when clean "
    "and wrongly when adversarial; 100 % by definition if the target is the source itself.",
    "error": "The share of all candidate images that the target misclassifies.",
}

FEWEST = 10  # images for a point in a figure: the share of a single one is 0 or 100 %, and looks like a finding


def transfer_table(records: Sequence[TransferRecord], *, measure: str, eps: float) -> Table:
    """Make a table of sources by targets for each attack, with n, laid out as Table 4 ("rate") or 6 ("error").

    Args:
        records: of any number of models and attacks on the same images.
        measure: "rate" or "error".
        eps: the size of the perturbation.

    Raises:
        ValueError: if there are no records of that size, or records are of different images.
    """
    _check(records)
    chosen = {(r.source, r.target, r.attack): r for r in records if r.eps == eps}
    if not chosen:
        raise ValueError(f"there are no records of eps = {eps:g}")
    sources, targets, attacks = (list(dict.fromkeys(names)) for names in zip(*chosen, strict=True))
    first = records[0]
    of_images = [str(first.n)] if measure == "error" else []  # once; for a rate, n differs between sources and attacks
    rows = []
    for top in tops_of(records):
        for source in sources:
            found = [[chosen.get((source, target, attack)) for target in targets] for attack in attacks]
            cells = [cell for of_attack in found for cell in _cells(of_attack, top, measure)]
            rows.append((f"top {top}", source, *of_images, *cells))
    columns = targets if of_images else ["n", *targets]
    columns_of_attacks = [f"{attack}: {column}" for attack in attacks for column in columns]
    header = ("Metric", "Source", *(["n"] if of_images else []), *columns_of_attacks)
    notes = (
        f"{_WHAT[measure]} Columns: the attack, and the target. eps in pixel values of [0, 255].",
        f"{first.n:,} of the {first.total:,} {first.split} images of {data_set_of(first)}, drawn at random by seed "
        f"{first.seed}. {INTERVALS}",
        *notes_on_gradients(chosen.values(), attacked="source"),
        *note_on_top5({r.attack for r in chosen.values() if r.top5 is None and r.classes >= FEWEST_CLASSES_FOR_TOP5}),
        *note_on_shown([(r.target, r.target_space, r.shown) for r in records]),
    )
    caption = f"{MEASURES[measure][0]}, eps = {eps:g}"
    about = (("Measure", MEASURES[measure][0]), ("eps", f"{eps:g}"), *about_images(first))
    about = tuple((("images", text) if name == "n" else (name, text)) for name, text in about)  # a rate has its own n
    return Table(caption, header, tuple(rows), labels=2 + len(of_images), notes=notes, about=about)


def _cells(records: Sequence[TransferRecord | None], top: int, measure: str) -> list[Cell]:
    """The cells of one source and attack: each target's share and, for a rate, n before them."""
    _, share_of = MEASURES[measure]
    counts = [None if record is None else record.counts(top) for record in records]
    shares = [None if found is None else share_of(found) for found in counts]
    cells: list[Cell] = [proportion(*share) if share and share[1] else None for share in shares]
    return cells if measure == "error" else [next((str(share[1]) for share in shares if share), None), *cells]


def transfer_figure(records: Sequence[TransferRecord], *, source: str, target: str, measure: str) -> Figure:
    """Draw transfer rate or error rate against eps: a panel for top 1 and top 5, a line per attack (Figures 2 and 5).

    At each point is the number of images behind it, if points differ in it, and otherwise in the panel's title. Points
    of fewer than :data:`FEWEST` images are left out.

    Args:
        records: of any number of models and attacks on the same images.
        source: the model that the images were made with.
        target: the model that they were shown to.
        measure: "rate" or "error".

    Raises:
        ValueError: if there are no records of that pair, or records are of different images.
    """
    _check(records)
    own = sorted((r for r in records if (r.source, r.target) == (source, target)), key=lambda r: r.eps)
    if not own:
        raise ValueError(f"there are no records of images made with {source} and shown to {target}")
    attacks = list(dict.fromkeys(r.attack for r in own))
    title, share_of = MEASURES[measure]
    tops = tops_of(own)
    figure, panels = panels_of(len(tops), lines=len(attacks))
    for top, axes in zip(tops, panels, strict=True):
        counted = [(r, share_of(counts)) for r in own if (counts := r.counts(top))]
        for index, attack in enumerate(attacks):
            found = [(r.eps, share) for r, share in counted if r.attack == attack and share[1] >= FEWEST]
            points = [(eps, wilson(*share)) for eps, share in found]
            differ = len({n for _, (_, n) in counted}) > 1
            numbers = [n for _, (_, n) in found] if differ else None
            draw_line(axes, attack, points, index, len(attacks), counts=numbers)
        eps_axis(axes, sorted({r.eps for r in own}), clean=False)
        if all(n < FEWEST for _, (_, n) in counted):
            axes.text(0.5, 0.5, f"no rate of {FEWEST} images or more", transform=axes.transAxes, ha="center")
        head = f"{source} to {target}, top {top}\n{_range_of([n for _, (_, n) in counted])}"
        axes.set(title=escape_label(head), ylim=(-3, 103), ylabel=f"{title.lower()} (%)")
    set_title(figure, f"{title} with 95 % confidence intervals", images_of(own[0]), own[0].seed)
    legend_below(figure, panels[:1])
    return figure


def _range_of(counts: Sequence[int]) -> str:
    """The number of images behind the points of a panel, and a note if some points are left out."""
    shown = [n for n in counts if n >= FEWEST]
    parts = [f"n = {min(shown):,}" + (f" to {max(shown):,}" if max(shown) > min(shown) else "")] if shown else []
    return "; ".join(parts + ([f"n < {FEWEST} left out"] if len(shown) < len(counts) else []))


def tops_of(records: Sequence[TransferRecord]) -> tuple[int, ...]:
    """Return what was measured: top 1, and top 5 with six classes or more, unless every attack stops early."""
    return (1, 5) if any(record.top5 is not None for record in records) else (1,)


def _check(records: Sequence[TransferRecord]) -> None:
    if not records:
        raise ValueError("there are no records")
    check_same_images(records, lambda record: f"{record.source} to {record.target}")
