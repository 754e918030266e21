"""Section 4.1: training on iterative examples."""

from __future__ import annotations

from fastadv.study.layout import Panel, Row, accuracy_figure, accuracy_table
from fastadv.study.plan import Network, Robustness, Shown, Study
from fastadv.study.results import Results
from fastadv.study.scales import Scale

ATTACKS = {"iter_ll": "Iter. l.l.", "iter_basic": "Iter. basic"}


def networks(scale: Scale) -> dict[str, Network]:
    """By what each is trained on."""

    def trained_on(attack: str) -> dict[str, object]:
        return {"attack.name": attack, "attack.options": dict(scale.iterative)}

    return {
        "standard": scale.standard("Baseline"),
        "step_ll": scale.adversarial("Trained on step l.l."),
        "iter_ll": scale.adversarial("Trained on iter. l.l.", trained_on("iter_ll")),
        "iter_basic": scale.adversarial("Trained on iter. basic", trained_on("iter_basic")),
    }


def evaluations(scale: Scale) -> list[Robustness]:
    """One sweep."""
    return [Robustness(tuple(networks(scale).values()), tuple(ATTACKS), scale.eps, scale.iterative_limit)]


def show(scale: Scale, results: Results) -> Shown:
    """A table, of which the paper has words alone, and a panel for each method."""
    found = networks(scale)
    rows = [
        Row((title, network.name), network, attack) for attack, title in ATTACKS.items() for network in found.values()
    ]
    steps = ", ".join(f"{name} = {value}" for name, value in scale.iterative.items()) or "as in evaluation"
    note = f"The paper gives no table of this. Iterative methods in training: {steps}."
    table = accuracy_table(
        scale,
        results,
        rows,
        caption="Training on iterative examples",
        labels=("Adv. method", "Training"),
        tops=(1,),
        notes=(note,),
    )
    panels = [
        Panel(title, [(network.name, network, attack) for network in found.values()])
        for attack, title in ATTACKS.items()
    ]
    return Shown({"iterative_training": table}, {"iterative_training": accuracy_figure(scale, results, panels)})


STUDY = Study("iterative_training", "Training on iterative examples", "Section 4.1", evaluations, show)
