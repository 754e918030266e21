"""Table 8: the number k of adversarial examples in a minibatch of m."""

from __future__ import annotations

from fastadv.study.layout import Panel, Row, accuracy_figure, accuracy_table
from fastadv.study.plan import Network, Robustness, Shown, Study
from fastadv.study.results import Results
from fastadv.study.scales import PAPER_M, Scale

OF_PAPER = (0, 4, 8, 16, 24, 32)


def networks(scale: Scale) -> dict[int, Network]:
    """By the paper's k of m = 32; here k / m is the same."""
    m = scale.base.m
    made = {0: scale.standard("No adv.")}
    for k in OF_PAPER[1:]:
        made[k] = scale.adversarial(f"Adv., k = {k * m // PAPER_M} of {m}", {"attack.k": k * m // PAPER_M})
    return made


def evaluations(scale: Scale) -> list[Robustness]:
    """One sweep."""
    return [Robustness(tuple(networks(scale).values()), ("step_ll",), scale.eps, scale.limit)]


def show(scale: Scale, results: Results) -> Shown:
    """The table, and its curves."""
    found = networks(scale)
    rows = [Row((network.name,), network, "step_ll", "table8", k) for k, network in found.items()]
    table = accuracy_table(
        scale, results, rows, caption="Adversarial examples per minibatch, step l.l.", labels=("Training",), tops=(1,)
    )
    lines = [(network.name, network, "step_ll") for network in found.values()]
    return Shown({"k_sweep": table}, {"k_sweep": accuracy_figure(scale, results, [Panel("step l.l.", lines)])})


STUDY = Study("k_sweep", "Number of adversarial examples", "Table 8", evaluations, show)
