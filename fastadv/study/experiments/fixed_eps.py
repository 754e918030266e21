"""Section 3: one fixed eps in training against an eps drawn for each example."""

from __future__ import annotations

from fastadv.study.checks import over_eps
from fastadv.study.evaluations import Robustness
from fastadv.study.layout import table_and_curves
from fastadv.study.networks import Network
from fastadv.study.plan import Shown, Study
from fastadv.study.results import Results
from fastadv.study.scales import Scale
from fastadv.study.verdicts import Check, Claim


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
    return scale.sweep(networks(scale).values(), ["step_ll"])


def show(scale: Scale, results: Results) -> Shown:
    """A table, of which the paper has words alone, and its curves."""
    return table_and_curves(
        scale,
        results,
        networks(scale),
        ["step_ll"],
        name="fixed_eps",
        caption="Fixed and random eps, step l.l.",
        label="Training",
        notes=["The paper gives no table of this."],
    )


STUDY = Study("fixed_eps", "Fixed and random eps in training", "Section 3", evaluations, show)


# --- what the paper claims --------------------------------------------------------------------------------------------


def _fixed_is_narrow(scale: Scale, results: Results) -> list[Check]:
    found = networks(scale)
    return [
        *over_eps(
            scale,
            results,
            f"random eps over {found['small'].name}",
            (found["random"], "step_ll"),
            (found["small"], "step_ll"),
            above=0,
            sizes=scale.eps[-1:],
        ),
        *over_eps(
            scale,
            results,
            f"random eps over {found['large'].name}",
            (found["random"], "step_ll"),
            (found["large"], "step_ll"),
            above=0,
            sizes=scale.eps[:2],
        ),
    ]


CLAIMS = (
    Claim(
        "fixed_is_narrow",
        "fixed_eps",
        "Section 3",
        "A network trained at one eps is robust at that eps only: at others, random eps in training is better; judged "
        "against training at the second size by the largest, and against training at the largest by the two smallest.",
        _fixed_is_narrow,
    ),
)
