"""Tables 4 and 6, Figures 2 and 5: transfer between two seeds, another activation and another architecture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise

from fastadv.evaluate.tables import Cell, Table
from fastadv.evaluate.transfer import TransferCounts, TransferRecord
from fastadv.evaluate.transfer_tables import FEWEST, MEASURES, tops_of, transfer_figure, transfer_table
from fastadv.study import paper
from fastadv.study.checks import at_eps
from fastadv.study.comparisons import gain, quotient
from fastadv.study.evaluations import Transfer
from fastadv.study.layout import TITLES
from fastadv.study.networks import Network
from fastadv.study.plan import Plot, Study, StudyOutput
from fastadv.study.results import Results, Share
from fastadv.study.scales import Scale
from fastadv.study.verdicts import Check, Claim

ATTACKS = ("fgsm", "iter_basic", "iter_ll")
TABLES = {"rate": "table4", "error": "table6"}


def networks(scale: Scale) -> dict[str, Network]:
    """A and B differ in the seed, C has ELU, D another architecture; all have standard training."""
    return {
        "A": scale.standard("A"),
        "B": scale.standard("B: another seed", {"seed": 1}),
        "C": scale.standard("C: ELU", {"model.options.activation": "elu"}),
        "D": scale.standard("D: another architecture", scale.other_architecture),
    }


def evaluations(scale: Scale) -> list[Transfer]:
    """One matrix for each method and eps."""
    return [Transfer(tuple(networks(scale).values()), ATTACKS, scale.eps, scale.transfer_limit)]


def show(scale: Scale, results: Results) -> StudyOutput:
    """Tables at the largest eps, which stands in for the paper's 16, and curves from A to B."""
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
    return StudyOutput(
        {f"transfer-{measure}": _with_paper_rows(records, measure, scale) for measure in MEASURES},
        {f"transfer-{measure}": _plot(records, measure) for measure in MEASURES},
    )


def _plot(records: list[TransferRecord], measure: str) -> Plot:
    figure = transfer_figure(records, source="A", target="B", measure=measure)
    title, _ = MEASURES[measure]
    caption = (
        f"{title} of images made with A and shown to B, against eps, with 95 % intervals. The number of images n is at "
        f"each point, or above a panel whose points all have the same; points with fewer than {FEWEST} images are left "
        "out."
    )
    return Plot(figure, caption)


def _with_paper_rows(records: list[TransferRecord], measure: str, scale: Scale) -> Table:
    table = transfer_table(records, measure=measure, eps=scale.eps[-1])
    of_images: list[Cell] = ["1000"] if measure == "error" else []  # n, as in transfer_table; not known for rates
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


# --- what the paper claims --------------------------------------------------------------------------------------------


def _counts(scale: Scale, results: Results, attack: str, eps: float, target: str = "B") -> TransferCounts:
    """Counts for images made with A. Hits are not recorded, so that comparisons treat them as independent."""
    found = networks(scale)
    record = results.transfer(found["A"], found[target], attack, eps)
    return TransferCounts(record.n, *record.top1)


def _rate(scale: Scale, results: Results, attack: str, eps: float) -> Share:
    """Transfer rate from A to B: the share of the images that fool A."""
    counts = _counts(scale, results, attack, eps)
    return Share(counts.transferred, counts.fooled)


def _error(scale: Scale, results: Results, attack: str, eps: float) -> Share:
    """Error rate from A to B: the share of all images."""
    counts = _counts(scale, results, attack, eps)
    return Share(counts.wrong, counts.n)


def _error_of_source(scale: Scale, results: Results, attack: str, eps: float) -> Share:
    counts = _counts(scale, results, attack, eps, "A")
    return Share(counts.wrong, counts.n)


_Measure = Callable[[Scale, Results, str, float], Share]


def _ordered(measure: _Measure, what: str, pairs: Sequence[tuple[str, str]]) -> Callable[[Scale, Results], list[Check]]:
    """Compare the first attack of each pair with the second, at the largest eps."""

    def checks(scale: Scale, results: Results) -> list[Check]:
        eps = scale.eps[-1]
        return [
            Check(
                f"{what}, {TITLES[one]} over {TITLES[other]} {at_eps(eps)}",
                gain(measure(scale, results, one, eps), measure(scale, results, other, eps)),
                above=0,
            )
            for one, other in pairs
        ]

    return checks


def _grows(measure: _Measure, what: str) -> Callable[[Scale, Results], list[Check]]:
    """Compare the largest eps with the smallest, for each attack."""

    def checks(scale: Scale, results: Results) -> list[Check]:
        smallest, largest = scale.eps[0], scale.eps[-1]
        return [
            Check(
                f"{what} of {TITLES[attack]}, largest over smallest eps",
                gain(measure(scale, results, attack, largest), measure(scale, results, attack, smallest)),
                above=0,
            )
            for attack in ATTACKS
        ]

    return checks


def _numerator_grows(scale: Scale, results: Results) -> list[Check]:
    checks = []
    for attack in ATTACKS:
        before, after = (_counts(scale, results, attack, eps) for eps in scale.eps[-2:])
        checks += [
            Check(
                f"images that transfer, {TITLES[attack]}, largest by second largest eps",
                quotient(Share(after.transferred, after.n), Share(before.transferred, before.n)),
                above=1.2,
                unit="",
            ),
            Check(
                f"images that fool A, {TITLES[attack]}, largest by second largest eps",
                quotient(Share(after.fooled, after.n), Share(before.fooled, before.n)),
                below=1.01,
                unit="",
            ),
        ]
    return checks


_BY_TRANSFER = tuple(pairwise(ATTACKS))

CLAIMS = (
    Claim(
        "order_of_transfer",
        "transfer",
        "Section 4.4",
        "FGSM examples transfer more often than iter. basic, and these than iter. l.l. (56, 46, 13 % from A to B); "
        "judged at the largest eps.",
        _ordered(_rate, "transfer rate from A to B", _BY_TRANSFER),
    ),
    Claim(
        "order_of_error",
        "transfer",
        "Appendix C",
        "Error rates on transferred examples are ordered as transfer rates are (52, 51, 32 % from A to B); judged at "
        "the largest eps.",
        _ordered(_error, "error rate from A to B", _BY_TRANSFER),
    ),
    Claim(
        "order_of_fooling",
        "transfer",
        "Section 4.4",
        "Iter. l.l. fools its own network most often (100 % against 78 and 65); judged at the largest eps.",
        _ordered(_error_of_source, "error of the source A", [("iter_ll", "fgsm"), ("iter_ll", "iter_basic")]),
    ),
    Claim(
        "fgsm_fools_least",
        "transfer",
        "Section 4.4",
        "FGSM is the least likely to fool its own network (65 % against 78 and 100); judged at the largest eps.",
        _ordered(_error_of_source, "error of the source A", [("iter_basic", "fgsm"), ("iter_ll", "fgsm")]),
    ),
    Claim(
        "transfer_grows",
        "transfer",
        "Figure 2",
        "The transfer rate of each method grows with eps; judged by comparing the largest eps with the smallest, from "
        "A to B.",
        _grows(_rate, "transfer rate from A to B"),
    ),
    Claim(
        "error_grows",
        "transfer",
        "Appendix C",
        "The error rate on transferred examples grows with eps, as the transfer rate does; judged by comparing the "
        "largest eps with the smallest, from A to B.",
        _grows(_error, "error rate from A to B"),
    ),
    Claim(
        "numerator_grows",
        "transfer",
        "Figure 2",
        "The numerator of the transfer rate grows much faster than its denominator: from eps = 8 to 16, the number of "
        "images that transfer grows by more than 20 %, that of images that fool their source by less than 1 %; judged "
        "from the second largest eps to the largest.",
        _numerator_grows,
    ),
)
