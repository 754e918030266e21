"""Table 1: standard and adversarial training of the base network and a deeper one, under step l.l."""

from __future__ import annotations

from fastadv.study.checks import POINT, accuracy_gains, at_eps, attacked_and_clean, clean_gain
from fastadv.study.comparisons import gain, weighted_sum
from fastadv.study.evaluations import Robustness
from fastadv.study.layout import table_and_curves, tops_of
from fastadv.study.networks import Network
from fastadv.study.plan import Study, StudyOutput
from fastadv.study.results import Results
from fastadv.study.scales import Scale
from fastadv.study.verdicts import Check, Claim


def networks(scale: Scale) -> dict[str, Network]:
    """Networks keyed by the rows of the paper's table."""
    return {
        "baseline": scale.standard("Baseline"),
        "adversarial": scale.adversarial("Adv. training"),
        "deeper_baseline": scale.standard("Deeper, baseline", scale.deeper_changes),
        "deeper_adversarial": scale.adversarial("Deeper, adv. training", scale.deeper_changes),
    }


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
        name="table1",
        caption="Accuracy under step l.l.",
        label="Network",
        table="table1",
        tops=tops_of(scale),
    )


STUDY = Study("table1", "Adversarial training at scale", "Table 1", evaluations, show)


# --- what the paper claims --------------------------------------------------------------------------------------------


def _robust(scale: Scale, results: Results) -> list[Check]:
    found = networks(scale)
    one, other = (found["adversarial"], "step_ll"), (found["baseline"], "step_ll")
    return accuracy_gains(scale, results, "adversarial over standard training", one, other, above=0)


def _on_a_par(scale: Scale, results: Results) -> list[Check]:
    network = networks(scale)["adversarial"]
    checks = []
    for eps in scale.eps:
        adversarial, clean = attacked_and_clean(results, network, "step_ll", eps)
        checks.append(Check(f"clean over step l.l. {at_eps(eps)}", gain(clean, adversarial), below=5 * POINT))
    return checks


def _clean_cost(scale: Scale, results: Results) -> list[Check]:
    found = networks(scale)
    what = "standard over adversarial training"
    return [clean_gain(results, found["baseline"], found["adversarial"], what, above=0, below=POINT)]


def _deeper_clean(scale: Scale, results: Results) -> list[Check]:
    found = {name: results.clean(network) for name, network in networks(scale).items()}
    loss = [(1, found["baseline"]), (-1, found["adversarial"])]
    deeper = [(-1, found["deeper_baseline"]), (1, found["deeper_adversarial"])]
    return [Check("loss of clean accuracy, base over deeper network", weighted_sum([*loss, *deeper]), above=0)]


def _deeper_robust(scale: Scale, results: Results) -> list[Check]:
    found = networks(scale)
    one, other = (found["deeper_adversarial"], "step_ll"), (found["adversarial"], "step_ll")
    return accuracy_gains(scale, results, "deeper over base network", one, other, above=0)


CLAIMS = (
    Claim(
        "robust",
        "table1",
        "Table 1",
        "Adversarial training raises accuracy under step l.l. (by 43 to 47 points at every eps).",
        _robust,
    ),
    Claim(
        "on_a_par",
        "table1",
        "Section 4.1",
        "An adversarially trained network is about as accurate under step l.l. as on clean images: it loses less than "
        "5 points (at most 4.1).",
        _on_a_par,
    ),
    Claim(
        "clean_cost",
        "table1",
        "Section 4.1",
        "Adversarial training costs clean accuracy, but less than 1 point (0.8).",
        _clean_cost,
    ),
    Claim(
        "deeper_clean",
        "table1",
        "Table 1",
        "A deeper network loses less clean accuracy in adversarial training (0.6 against 0.8 points).",
        _deeper_clean,
    ),
    Claim(
        "deeper_robust",
        "table1",
        "Table 1",
        "A deeper network becomes more robust in adversarial training (by 0.5 to 1.9 points).",
        _deeper_robust,
    ),
)
