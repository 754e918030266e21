"""Table 2: the networks of Table 1 under iterative methods, which they were not trained on."""

from __future__ import annotations

from fastadv.study.layout import Panel, Row, accuracy_figure, accuracy_table, tops_of
from fastadv.study.plan import Network, Robustness, Shown, Study
from fastadv.study.results import Results
from fastadv.study.scales import Scale

ATTACKS = {"iter_ll": "Iter. l.l.", "iter_basic": "Iter. basic"}


def networks(scale: Scale) -> dict[str, Network]:
    """By the rows of the paper's table."""
    return {"adversarial": scale.adversarial("Adv. training"), "baseline": scale.standard("Baseline")}


def evaluations(scale: Scale) -> list[Robustness]:
    """One sweep."""
    return [Robustness(tuple(networks(scale).values()), tuple(ATTACKS), scale.eps, scale.iterative_limit)]


def show(scale: Scale, results: Results) -> Shown:
    """The table, and a panel for each method."""
    found = networks(scale)
    rows = [
        Row((title, network.name), network, attack, "table2", f"{attack} {row}")
        for attack, title in ATTACKS.items()
        for row, network in found.items()
    ]
    table = accuracy_table(
        scale,
        results,
        rows,
        caption="Accuracy under iterative methods",
        labels=("Adv. method", "Training"),
        tops=tops_of(scale),
    )
    panels = [
        Panel(title, [(network.name, network, attack) for network in found.values()])
        for attack, title in ATTACKS.items()
    ]
    return Shown({"table2": table}, {"table2": accuracy_figure(scale, results, panels)})


STUDY = Study("table2", "Iterative examples", "Table 2", evaluations, show)
