"""Table 1: standard and adversarial training, of the base network and of a deeper one, under step l.l."""

from __future__ import annotations

from fastadv.study.layout import Panel, Row, accuracy_figure, accuracy_table, tops_of
from fastadv.study.plan import Network, Robustness, Shown, Study
from fastadv.study.results import Results
from fastadv.study.scales import Scale


def networks(scale: Scale) -> dict[str, Network]:
    """By the rows of the paper's table."""
    return {
        "baseline": scale.standard("Baseline"),
        "adversarial": scale.adversarial("Adv. training"),
        "deeper_baseline": scale.standard("Deeper, baseline", scale.deeper),
        "deeper_adversarial": scale.adversarial("Deeper, adv. training", scale.deeper),
    }


def evaluations(scale: Scale) -> list[Robustness]:
    """One sweep."""
    return [Robustness(tuple(networks(scale).values()), ("step_ll",), scale.eps, scale.limit)]


def show(scale: Scale, results: Results) -> Shown:
    """The table, and its curves."""
    found = networks(scale)
    rows = [Row((network.name,), network, "step_ll", "table1", row) for row, network in found.items()]
    table = accuracy_table(
        scale, results, rows, caption="Accuracy under step l.l.", labels=("Network",), tops=tops_of(scale)
    )
    lines = [(network.name, network, "step_ll") for network in found.values()]
    return Shown({"table1": table}, {"table1": accuracy_figure(scale, results, [Panel("step l.l.", lines)])})


STUDY = Study("table1", "Adversarial training at scale", "Table 1", evaluations, show)
