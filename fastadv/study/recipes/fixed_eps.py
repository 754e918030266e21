"""Section 3: one fixed eps in training against an eps drawn for each example."""

from __future__ import annotations

from fastadv.study.layout import Panel, Row, accuracy_figure, accuracy_table
from fastadv.study.plan import Network, Robustness, Shown, Study
from fastadv.study.results import Results
from fastadv.study.scales import Scale


def networks(scale: Scale) -> dict[str, Network]:
    """By "random", and "small" and "large" at fixed sizes."""
    small, large = (scale.eps[index] for index in scale.fixed)
    return {
        "random": scale.adversarial("Random eps"),
        "small": scale.adversarial(f"eps = {small:g}", {"attack.eps": float(small)}),
        "large": scale.adversarial(f"eps = {large:g}", {"attack.eps": float(large)}),
    }


def evaluations(scale: Scale) -> list[Robustness]:
    """One sweep."""
    return [Robustness(tuple(networks(scale).values()), ("step_ll",), scale.eps, scale.limit)]


def show(scale: Scale, results: Results) -> Shown:
    """A table, of which the paper has words alone, and its curves."""
    found = networks(scale)
    rows = [Row((network.name,), network, "step_ll") for network in found.values()]
    note = "The paper gives no table of this."
    table = accuracy_table(
        scale, results, rows, caption="Fixed and random eps, step l.l.", labels=("Training",), tops=(1,), notes=(note,)
    )
    lines = [(network.name, network, "step_ll") for network in found.values()]
    return Shown({"fixed_eps": table}, {"fixed_eps": accuracy_figure(scale, results, [Panel("step l.l.", lines)])})


STUDY = Study("fixed_eps", "Fixed and random eps in training", "Section 3", evaluations, show)
