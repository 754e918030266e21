"""Tables 4 and 6, Figures 2 and 5: transfer between two seeds, another activation and another architecture."""

from __future__ import annotations

from dataclasses import replace

from fastadv.evaluate.tables import Cell, Table
from fastadv.evaluate.transfer import TransferRecord
from fastadv.evaluate.transfer_tables import FEWEST, MEASURES, tops_of, transfer_figure, transfer_table
from fastadv.study import paper
from fastadv.study.layout import TITLES
from fastadv.study.plan import Network, Plot, Shown, Study, Transfer
from fastadv.study.results import Results
from fastadv.study.scales import Scale

ATTACKS = ("fgsm", "iter_basic", "iter_ll")
TABLES = {"rate": "table4", "error": "table6"}


def networks(scale: Scale) -> dict[str, Network]:
    """A and B of two seeds, C with ELU, D of another architecture; all trained as usual."""
    return {
        "A": scale.standard("A"),
        "B": scale.standard("B: another seed", {"seed": 1}),
        "C": scale.standard("C: ELU", {"model.options.activation": "elu"}),
        "D": scale.standard("D: another architecture", scale.other),
    }


def evaluations(scale: Scale) -> list[Transfer]:
    """One matrix for each method and size."""
    return [Transfer(tuple(networks(scale).values()), ATTACKS, scale.eps, scale.transfer_limit)]


def show(scale: Scale, results: Results) -> Shown:
    """Tables at the largest eps, in the place of the paper's 16, and curves from A to B."""
    found = networks(scale)
    records = [
        replace(
            results.transfer(found[source], found[target], attack, eps),
            source=source,
            target=target,
            attack=TITLES[attack],
        )
        for attack in ATTACKS
        for eps in scale.eps
        for source in found
        for target in found
    ]
    return Shown(
        {f"transfer-{measure}": _beside_the_papers(records, measure, scale) for measure in MEASURES},
        {f"transfer-{measure}": _plot(records, measure) for measure in MEASURES},
    )


def _plot(records: list[TransferRecord], measure: str) -> Plot:
    figure = transfer_figure(records, source="A", target="B", measure=measure)
    title, _ = MEASURES[measure]
    caption = (
        f"{title} of images made with A and shown to B, against eps, with 95 % intervals. n, the images that a point "
        f"is of, is above each panel; points of fewer than {FEWEST} are left out."
    )
    return Plot(figure, caption)


def _beside_the_papers(records: list[TransferRecord], measure: str, scale: Scale) -> Table:
    table = transfer_table(records, measure=measure, eps=scale.eps[-1])
    of_images: list[Cell] = ["1000"] if measure == "error" else []  # n, as in transfer_table; of rates it is unknown
    rows: list[tuple[Cell, ...]] = []
    tops = [top for top in tops_of(records) for _ in "ABCD"]
    for index, (row, top) in enumerate(zip(table.rows, tops, strict=True)):
        theirs = [*of_images]
        for attack in ATTACKS:
            percents = paper.transfer(TABLES[measure], attack, top)[index % 4]
            theirs += [*([] if of_images else [None]), *(f"{percent}%" for percent in percents)]
        rows += [(*row[:2], "here", *row[2:]), (*row[:2], "paper", *theirs)]
    names = "; ".join(network.name for name, network in networks(scale).items() if name != "A")
    notes = (*table.notes, f"A: the base network; {names}. The paper's numbers are at eps = 16.")
    header = (*table.header[:2], "", *table.header[2:])
    return replace(table, header=header, rows=tuple(rows), labels=table.labels + 1, notes=notes)


STUDY = Study("transfer", "Transferability", "Tables 4 and 6, Figures 2 and 5", evaluations, show)
