"""Section 3: a fixed eps in training against an eps drawn for each example."""

from __future__ import annotations

from fastadv.study.checks import accuracy_gains
from fastadv.study.evaluations import Robustness
from fastadv.study.layout import table_and_curves
from fastadv.study.networks import Network
from fastadv.study.plan import Study, StudyOutput
from fastadv.study.results import Results
from fastadv.study.scales import Scale
from fastadv.study.verdicts import Check, Claim


def networks(scale: Scale) -> dict[str, Network]:
    """Networks trained with "random" eps, and with a fixed "small" and "large" eps."""
    small, large = (scale.eps[index] for index in scale.fixed_eps_indices)
    return {
        "random": scale.adversarial("Random eps"),
        "small": scale.adversarial(f"eps = {small:g}", {"attack.eps": float(small)}),
        "large": scale.adversarial(f"eps = {large:g}", {"attack.eps": float(large)}),
    }


def evaluations(scale: Scale) -> list[Robustness]:
    """One sweep."""
    return scale.sweep(networks(scale).values(), ["step_ll"])


def show(scale: Scale, results: Results) -> StudyOutput:
    """A table, which the paper does not have, and its curves."""
    return table_and_curves(
        scale,
        results,
        networks(scale),
        ["step_ll"],
        name="fixed_eps",
        caption="Fixed and random eps, step l.l.",
        label="Training",
        notes=["The paper has no table of this."],
    )


STUDY = Study("fixed_eps", "Fixed and random eps in training", "Section 3", evaluations, show)


# --- what the paper claims --------------------------------------------------------------------------------------------


def _fixed_is_narrow(scale: Scale, results: Results) -> list[Check]:
    found = networks(scale)
    return [
        *accuracy_gains(
            scale,
            results,
            f"random eps over {found['small'].name}",
            (found["random"], "step_ll"),
            (found["small"], "step_ll"),
            above=0,
            sizes=scale.eps[-1:],
        ),
        *accuracy_gains(
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
        "at the largest eps for training at the second, and at the two smallest for training at the largest.",
        _fixed_is_narrow,
    ),
)
