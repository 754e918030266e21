"""Table 8: the number k of adversarial examples in a minibatch of m."""

from __future__ import annotations

from fastadv.study.layout import table_and_curves
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
    return scale.sweep(networks(scale).values(), ["step_ll"])


def show(scale: Scale, results: Results) -> Shown:
    """The table, and its curves."""
    return table_and_curves(
        scale,
        results,
        networks(scale),
        ["step_ll"],
        name="k_sweep",
        caption="Adversarial examples per minibatch, step l.l.",
        label="Training",
        table="table8",
    )


STUDY = Study("k_sweep", "Number of adversarial examples", "Table 8", evaluations, show)
