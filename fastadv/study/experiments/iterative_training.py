"""Section 4.1: training on iterative examples."""

from __future__ import annotations

from fastadv.study.checks import POINT, accuracy_gains, clean_gain
from fastadv.study.evaluations import Robustness
from fastadv.study.layout import TITLES, table_and_curves
from fastadv.study.networks import Network
from fastadv.study.plan import Study, StudyOutput
from fastadv.study.results import Results
from fastadv.study.scales import Scale
from fastadv.study.verdicts import Check, Claim

ATTACKS = ("iter_ll", "iter_basic")


def networks(scale: Scale) -> dict[str, Network]:
    """Networks keyed by what they are trained on."""
    made = {"standard": scale.standard("Baseline"), "step_ll": scale.adversarial("Trained on step l.l.")}
    for attack in ATTACKS:
        changes = {"attack.name": attack, "attack.options": dict(scale.iterative_training_options)}
        made[attack] = scale.adversarial(f"Trained on {TITLES[attack]}", changes)
    return made


def evaluations(scale: Scale) -> list[Robustness]:
    """One sweep."""
    return scale.sweep(networks(scale).values(), ATTACKS)


def show(scale: Scale, results: Results) -> StudyOutput:
    """A table, which the paper does not have, and a panel for each method."""
    steps = (
        ", ".join(f"{name} = {value}" for name, value in scale.iterative_training_options.items()) or "as in evaluation"
    )
    return table_and_curves(
        scale,
        results,
        networks(scale),
        ATTACKS,
        name="iterative_training",
        caption="Training on iterative examples",
        label="Training",
        notes=[f"The paper has no table of this. Options of the iterative methods in training: {steps}."],
    )


STUDY = Study("iterative_training", "Training on iterative examples", "Section 4.1", evaluations, show)


# --- what the paper claims --------------------------------------------------------------------------------------------


def _iterative_costs(scale: Scale, results: Results) -> list[Check]:
    found = networks(scale)
    return [
        clean_gain(
            results,
            found["standard"],
            found[kind],
            f"standard over training on {TITLES[kind]}",
            above=POINT,
            images_of=kind,
            eps=scale.eps[0],
        )
        for kind in ATTACKS
    ]


def _iterative_gains_nothing(scale: Scale, results: Results) -> list[Check]:
    found = networks(scale)
    return [
        check
        for kind in ATTACKS
        for check in accuracy_gains(
            scale,
            results,
            f"under {TITLES[kind]}, trained on it over trained on step l.l.",
            (found[kind], kind),
            (found["step_ll"], kind),
            below=10 * POINT,
        )
    ]


CLAIMS = (
    Claim(
        "iterative_costs",
        "iterative_training",
        "Section 4.1",
        "Training on iterative examples reduces clean accuracy significantly: by more than 1 point.",
        _iterative_costs,
    ),
    Claim(
        "iterative_gains_nothing",
        "iterative_training",
        "Section 4.1",
        "Training on iterative examples gives no robustness to them; judged by a gain of less than 10 points over "
        "training on step l.l., a bound chosen by us.",
        _iterative_gains_nothing,
    ),
)
