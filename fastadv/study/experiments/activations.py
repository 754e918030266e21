"""Table 7: networks with different activation functions, trained on step l.l., under three attacks."""

from __future__ import annotations

from collections.abc import Callable

from fastadv.study.checks import POINT, accuracy_gains, at_eps, clean_gain
from fastadv.study.comparisons import gain
from fastadv.study.evaluations import Robustness
from fastadv.study.layout import TITLES, table_and_curves
from fastadv.study.networks import Network
from fastadv.study.plan import Study, StudyOutput
from fastadv.study.results import Results
from fastadv.study.scales import Scale
from fastadv.study.verdicts import Check, Claim

# Those of Table 7, and the ELU of network C in the transfer study.
ACTIVATIONS = ("relu", "relu6", "relu_decay:0.001", "relu_decay:0.01", "relu_decay:0.1", "tanh", "elu")
ATTACKS = ("step_ll", "iter_ll", "iter_basic")


def networks(scale: Scale) -> dict[str, Network]:
    """Networks keyed by activation; relu is the base network."""
    made = {"relu": scale.adversarial("relu")}
    for name in ACTIVATIONS[1:]:
        made[name] = scale.adversarial(name, {"model.options.activation": name})
    return made


def evaluations(scale: Scale) -> list[Robustness]:
    """One sweep."""
    return scale.sweep(networks(scale).values(), ATTACKS)


def show(scale: Scale, results: Results) -> StudyOutput:
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
        reference="relu",
    )


STUDY = Study("activations", "Activation functions", "Table 7", evaluations, show)


# --- what the paper claims --------------------------------------------------------------------------------------------


def _lossy_activations(scale: Scale, results: Results) -> list[Check]:
    found = networks(scale)
    checks = []
    for name in ("tanh", "relu_decay:0.1"):
        checks.append(clean_gain(results, found["relu"], found[name], f"relu over {name}", above=0))
        one, other = (found["relu"], "step_ll"), (found[name], "step_ll")
        checks += accuracy_gains(scale, results, f"step l.l., relu over {name}", one, other, above=0)
    return checks


def _similar_activations(scale: Scale, results: Results) -> list[Check]:
    found = networks(scale)
    return [
        clean_gain(results, found[name], found["relu"], f"{name} over relu", above=-POINT, below=POINT)
        for name in ("relu6", "relu_decay:0.01", "relu_decay:0.001")
    ]


def _slightly_lossy(scale: Scale, results: Results) -> list[Check]:
    found = networks(scale)
    return [
        check
        for name in ("relu6", "relu_decay:0.01", "relu_decay:0.001")
        for check in accuracy_gains(
            scale,
            results,
            f"step l.l., relu over {name}",
            (found["relu"], "step_ll"),
            (found[name], "step_ll"),
            above=0,
            below=3 * POINT,
        )
    ]


def _iterative_defence(name: str) -> Callable[[Scale, Results], list[Check]]:
    def checks(scale: Scale, results: Results) -> list[Check]:
        found = networks(scale)
        return [
            Check(
                f"{TITLES[attack]}, {name} over relu {at_eps(eps)}",
                gain(results.accuracy(found[name], attack, eps), results.accuracy(found["relu"], attack, eps)),
                above=0,
            )
            for attack in ("iter_ll", "iter_basic")
            for eps in scale.eps
        ]

    return checks


CLAIMS = (
    Claim(
        "lossy_activations",
        "activations",
        "Appendix D",
        "Tanh and ReluDecay 0.1 lose accuracy on clean (2 to 3 points) and on step l.l. images (10 to 20 by the text, "
        "7 to 13 by Table 7); judged by whether there is a loss.",
        _lossy_activations,
    ),
    Claim(
        "similar_activations",
        "activations",
        "Appendix D",
        "Relu6 and ReluDecay 0.01 and 0.001 are within 1 point of relu on clean images.",
        _similar_activations,
    ),
    Claim(
        "slightly_lossy_activations",
        "activations",
        "Appendix D",
        "Relu6 and ReluDecay 0.01 and 0.001 lose accuracy under step l.l., but less than 3 points (0.2 to 2.8).",
        _slightly_lossy,
    ),
    *(
        Claim(
            f"iterative_defence_{name.replace(':', '_')}",
            "activations",
            "Appendix D",
            f"{name} is more accurate than relu on some iterative examples.",
            _iterative_defence(name),
            any_suffices=True,
        )
        for name in ("relu6", "relu_decay:0.001", "relu_decay:0.01", "relu_decay:0.1", "tanh")
    ),
)
