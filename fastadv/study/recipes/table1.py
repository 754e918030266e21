"""Table 1: standard and adversarial training, of the base network and of a deeper one, under step l.l."""

from __future__ import annotations

from fastadv.study.layout import table_and_curves, tops_of
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
    return scale.sweep(networks(scale).values(), ["step_ll"])


def show(scale: Scale, results: Results) -> Shown:
    """The table, and its curves."""
    return table_and_curves(
        scale,
        results,
        networks(scale),
        ["step_ll"],
        name="table1",
        caption="Accuracy under step l.l.",
        label="Network",
        table="table1",
        tops=tops_of(scale),
    )


STUDY = Study("table1", "Adversarial training at scale", "Table 1", evaluations, show)
