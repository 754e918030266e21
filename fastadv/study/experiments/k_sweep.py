"""Table 8: the number k of adversarial examples in a minibatch of m."""

from __future__ import annotations

from fastadv.study.checks import POINT, accuracy_gains, clean_gain
from fastadv.study.evaluations import Robustness
from fastadv.study.layout import table_and_curves
from fastadv.study.networks import Network
from fastadv.study.plan import Study, StudyOutput
from fastadv.study.results import Results
from fastadv.study.scales import PAPER_M, Scale
from fastadv.study.verdicts import Check, Claim

PAPER_K = (0, 4, 8, 16, 24, 32)


def networks(scale: Scale) -> dict[int, Network]:
    """Networks keyed by the paper's k for m = 32; k / m is the same here."""
    m = scale.base.m
    made = {0: scale.standard("No adv.")}
    for k in PAPER_K[1:]:
        made[k] = scale.adversarial(f"Adv., k = {k * m // PAPER_M} of {m}", {"attack.k": k * m // PAPER_M})
    return made


def evaluations(scale: Scale) -> list[Robustness]:
    """One sweep."""
    return scale.sweep(networks(scale).values(), ["step_ll"])


def show(scale: Scale, results: Results) -> StudyOutput:
    """The table and its curves."""
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


# --- what the paper claims --------------------------------------------------------------------------------------------


def _more_k_more_robust(scale: Scale, results: Results) -> list[Check]:
    found = networks(scale)
    one, other = (found[16], "step_ll"), (found[4], "step_ll")
    return accuracy_gains(scale, results, "k = m/2 over m/8", one, other, above=0, sizes=scale.eps[1:])


def _more_k_less_clean(scale: Scale, results: Results) -> list[Check]:
    found = networks(scale)
    return [clean_gain(results, found[4], found[32], "k = m/8 over m", above=0)]


def _half_is_enough(scale: Scale, results: Results) -> list[Check]:
    found = networks(scale)
    one, other = (found[32], "step_ll"), (found[16], "step_ll")
    return accuracy_gains(scale, results, "k = m over m/2", one, other, below=POINT)


def _more_than_half_costs(scale: Scale, results: Results) -> list[Check]:
    found = networks(scale)
    return [
        clean_gain(results, found[16], found[k], f"k = m/2 over {name}", above=0, below=1.5 * POINT)
        for k, name in ((24, "3m/4"), (32, "m"))
    ]


CLAIMS = (
    Claim(
        "more_k_more_robust",
        "k_sweep",
        "Appendix E",
        "More adversarial examples per minibatch give more robustness (k = 4 to 16: 4 to 10 points); judged at the "
        "three larger eps.",
        _more_k_more_robust,
    ),
    Claim(
        "more_k_less_clean",
        "k_sweep",
        "Appendix E",
        "More adversarial examples per minibatch cost clean accuracy (k = 4 to 32: 2.0 points).",
        _more_k_less_clean,
    ),
    Claim(
        "half_is_enough",
        "k_sweep",
        "Appendix E",
        "Making more than half of the minibatch adversarial brings no significant gain under step l.l.: less than 1 "
        "point (k = 16 to 32: at most 0.4).",
        _half_is_enough,
    ),
    Claim(
        "more_than_half_costs",
        "k_sweep",
        "Appendix E",
        "Making more than half of the minibatch adversarial costs up to 1 % more clean accuracy (k = 16 to 24: 0.5 "
        "points, 32: 1.3); judged by a loss of less than 1.5 points, which rounds to 1.",
        _more_than_half_costs,
        added_later=True,
    ),
)
