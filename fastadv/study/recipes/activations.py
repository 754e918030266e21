"""Table 7: activation functions, each trained on step l.l., under one-step and iterative methods."""

from __future__ import annotations

from fastadv.study.layout import Panel, Row, accuracy_figure, accuracy_table
from fastadv.study.plan import Network, Robustness, Shown, Study
from fastadv.study.results import Results
from fastadv.study.scales import Scale

# Those of the table, and the ELU of the transfer study's network C.
ACTIVATIONS = ("relu", "relu6", "relu_decay:0.001", "relu_decay:0.01", "relu_decay:0.1", "tanh", "elu")
ATTACKS = {"step_ll": "Step l.l.", "iter_ll": "Iter. l.l.", "iter_basic": "Basic iter."}


def networks(scale: Scale) -> dict[str, Network]:
    """By activation; relu is the base network."""
    made = {"relu": scale.adversarial("relu")}
    for name in ACTIVATIONS[1:]:
        made[name] = scale.adversarial(name, {"model.options.activation": name})
    return made


def evaluations(scale: Scale) -> list[Robustness]:
    """The method of one step on more images."""
    every = tuple(networks(scale).values())
    return [
        Robustness(every, ("step_ll",), scale.eps, scale.limit),
        Robustness(every, ("iter_ll", "iter_basic"), scale.eps, scale.iterative_limit),
    ]


def show(scale: Scale, results: Results) -> Shown:
    """The table, and a panel for each method."""
    found = networks(scale)
    rows = [
        Row((title, name), network, attack, "table7", f"{attack} {name}")
        for attack, title in ATTACKS.items()
        for name, network in found.items()
    ]
    table = accuracy_table(
        scale, results, rows, caption="Activation functions", labels=("Adv. method", "Activation"), tops=(1,)
    )
    panels = [
        Panel(title, [(name, network, attack) for name, network in found.items()]) for attack, title in ATTACKS.items()
    ]
    return Shown({"activations": table}, {"activations": accuracy_figure(scale, results, panels)})


STUDY = Study("activations", "Activation functions", "Table 7", evaluations, show)
