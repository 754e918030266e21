"""Table 7: activation functions, each trained on step l.l., under one-step and iterative methods."""

from __future__ import annotations

from fastadv.study.layout import table_and_curves
from fastadv.study.plan import Network, Robustness, Shown, Study
from fastadv.study.results import Results
from fastadv.study.scales import Scale

# Those of the table, and the ELU of the transfer study's network C.
ACTIVATIONS = ("relu", "relu6", "relu_decay:0.001", "relu_decay:0.01", "relu_decay:0.1", "tanh", "elu")
ATTACKS = ("step_ll", "iter_ll", "iter_basic")


def networks(scale: Scale) -> dict[str, Network]:
    """By activation; relu is the base network."""
    made = {"relu": scale.adversarial("relu")}
    for name in ACTIVATIONS[1:]:
        made[name] = scale.adversarial(name, {"model.options.activation": name})
    return made


def evaluations(scale: Scale) -> list[Robustness]:
    """One sweep."""
    return scale.sweep(networks(scale).values(), ATTACKS)


def show(scale: Scale, results: Results) -> Shown:
    """The table, and a panel for each method."""
    return table_and_curves(
        scale,
        results,
        networks(scale),
        ATTACKS,
        name="activations",
        caption="Activation functions",
        label="Activation",
        table="table7",
        against="relu",
    )


STUDY = Study("activations", "Activation functions", "Table 7", evaluations, show)
