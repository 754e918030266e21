"""Section 4.1: training on iterative examples."""

from __future__ import annotations

from fastadv.study.layout import TITLES, table_and_curves
from fastadv.study.plan import Network, Robustness, Shown, Study
from fastadv.study.results import Results
from fastadv.study.scales import Scale

ATTACKS = ("iter_ll", "iter_basic")


def networks(scale: Scale) -> dict[str, Network]:
    """By what each is trained on."""
    made = {"standard": scale.standard("Baseline"), "step_ll": scale.adversarial("Trained on step l.l.")}
    for attack in ATTACKS:
        changes = {"attack.name": attack, "attack.options": dict(scale.iterative)}
        made[attack] = scale.adversarial(f"Trained on {TITLES[attack]}", changes)
    return made


def evaluations(scale: Scale) -> list[Robustness]:
    """One sweep."""
    return scale.sweep(networks(scale).values(), ATTACKS)


def show(scale: Scale, results: Results) -> Shown:
    """A table, of which the paper has words alone, and a panel for each method."""
    steps = ", ".join(f"{name} = {value}" for name, value in scale.iterative.items()) or "as in evaluation"
    return table_and_curves(
        scale,
        results,
        networks(scale),
        ATTACKS,
        name="iterative_training",
        caption="Training on iterative examples",
        label="Training",
        notes=[f"The paper gives no table of this. Iterative methods in training: {steps}."],
    )


STUDY = Study("iterative_training", "Training on iterative examples", "Section 4.1", evaluations, show)
