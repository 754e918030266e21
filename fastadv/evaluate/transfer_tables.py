"""Tables and figures of transfer, made from records: the paper's Tables 4 and 6, Figures 2 and 5."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from fastadv.evaluate.figures import draw_line, eps_axis, legend_below, panels_of
from fastadv.evaluate.statistics import Proportion, proportion, wilson
from fastadv.evaluate.tables import Table, note_on_ends
from fastadv.evaluate.transfer import TransferCounts, TransferRecord

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Title, and how many of how many images.
MEASURES: dict[str, tuple[str, Callable[[TransferCounts], tuple[int, int]]]] = {
    "rate": ("Transfer rate", lambda counts: (counts.transferred, counts.fooled)),
    "error": ("Error rate", lambda counts: (counts.wrong, counts.n)),
}
_WHAT = {
    "rate": "Of the n images that the source classifies correctly when clean and wrongly when adversarial: those that "
    "the target misclassifies; if it is the source itself all, by definition.",
    "error": "Of all candidate images: those that the target misclassifies.",
}


def transfer_table(records: Sequence[TransferRecord], *, measure: str, eps: float) -> Table:
    """Sources by targets for each attack, laid out as the paper's Table 4 ("rate") or 6 ("error").

    Args:
        records: of any number of models and attacks on the same images.
        measure: "rate" or "error".
        eps: the size of the perturbation that the table is of.

    Raises:
        ValueError: no records of that size, or of different images.
    """
    check_same_images(records)
    chosen = {(r.source, r.target, r.attack): r for r in records if r.eps == eps}
    if not chosen:
        raise ValueError(f"there are no records of eps = {eps:g}")
    sources, targets, attacks = (list(dict.fromkeys(names)) for names in zip(*chosen, strict=True))
    title, share_of = MEASURES[measure]
    rows = []
    for top in tops_of(records):
        for source in sources:
            cells: list[Proportion | None] = []
            for attack in attacks:
                for target in targets:
                    record = chosen.get((source, target, attack))
                    counts = None if record is None else record.counts(top)
                    found, n = (0, 0) if counts is None else share_of(counts)
                    cells.append(proportion(found, n) if n else None)
            rows.append((f"top {top}", source, *cells))
    header = ("Metric", "Source", *(f"{attack}: {target}" for attack in attacks for target in targets))
    first = records[0]
    notes = (
        f"{_WHAT[measure]} Columns: the attack, and the target. eps in pixel values of [0, 255].",
        f"{first.n:,} of the {first.total:,} {first.split} images of {first.dataset}, drawn at random by seed "
        f"{first.seed}. ±: half the width of the 95 % confidence interval.",
        *note_on_ends(rows, [first.n] if measure == "error" else []),
    )
    return Table(f"{title}, eps = {eps:g}", header, tuple(rows), labels=2, notes=notes)


def transfer_figure(records: Sequence[TransferRecord], *, source: str, target: str, measure: str) -> Figure:
    """Transfer rate or error rate against eps: a panel for top 1 and top 5, a line per attack (Figures 2 and 5).

    Args:
        records: of any number of models and attacks on the same images.
        source: the model that the images were made with.
        target: the model that they were shown to.
        measure: "rate" or "error".

    Raises:
        ValueError: no records of that pair, or of different images.
    """
    check_same_images(records)
    own = sorted((r for r in records if (r.source, r.target) == (source, target)), key=lambda r: r.eps)
    if not own:
        raise ValueError(f"there are no records of images made with {source} and shown to {target}")
    attacks = list(dict.fromkeys(r.attack for r in own))
    title, share_of = MEASURES[measure]
    tops = tops_of(own)
    figure, panels = panels_of(len(tops), lines=len(attacks))
    for top, axes in zip(tops, panels, strict=True):
        for index, attack in enumerate(attacks):
            shares = [(r.eps, share_of(counts)) for r in own if r.attack == attack and (counts := r.counts(top))]
            draw_line(axes, attack, [(eps, wilson(found, n)) for eps, (found, n) in shares if n], index)
        eps_axis(axes, sorted({r.eps for r in own}), clean=False)
        axes.set(title=f"{source} to {target}, top {top}", ylim=(-3, 103), ylabel=f"{title.lower()} (%)")
    legend_below(figure, panels[0])
    return figure


def tops_of(records: Sequence[TransferRecord]) -> tuple[int, ...]:
    """What was measured: top 1, and top 5 with six classes or more."""
    return (1, 5) if all(record.top5 is not None for record in records) else (1,)


def check_same_images(records: Sequence[TransferRecord]) -> None:
    """Raise if these records cannot be compared, because they are of different images.

    Raises:
        ValueError: naming two records that differ, or none given.
    """
    if not records:
        raise ValueError("there are no records")
    for record in records[1:]:
        if record.images != records[0].images:
            names = [f"{r.source} to {r.target} ({r.dataset} {r.split}, {r.n} images)" for r in (records[0], record)]
            raise ValueError(f"records of different images cannot share a table or a figure: {' and '.join(names)}")
