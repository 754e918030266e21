"""Table 2: the networks of Table 1 under iterative methods, which they were not trained on."""

from __future__ import annotations

from fastadv.study.checks import POINT, accuracy_gains, at_eps
from fastadv.study.comparisons import gain, share
from fastadv.study.evaluations import Robustness
from fastadv.study.layout import TITLES, table_and_curves, tops_of
from fastadv.study.networks import Network
from fastadv.study.plan import Study, StudyOutput
from fastadv.study.results import Results
from fastadv.study.scales import Scale
from fastadv.study.verdicts import Check, Claim

ATTACKS = ("iter_ll", "iter_basic")
ONE_STEP = {"iter_ll": "step_ll", "iter_basic": "fgsm"}


def networks(scale: Scale) -> dict[str, Network]:
    """Networks keyed by the rows of the paper's table."""
    return {"adversarial": scale.adversarial("Adv. training"), "baseline": scale.standard("Baseline")}


def evaluations(scale: Scale) -> list[Robustness]:
    """The table, and the baseline under the one-step methods that the iterative ones repeat."""
    found = networks(scale)
    return [*scale.sweep(found.values(), ATTACKS), *scale.sweep([found["baseline"]], tuple(ONE_STEP.values()))]


def show(scale: Scale, results: Results) -> StudyOutput:
    """The table and a panel for each method."""
    return table_and_curves(
        scale,
        results,
        networks(scale),
        ATTACKS,
        name="table2",
        caption="Accuracy under iterative methods",
        label="Training",
        table="table2",
        tops=tops_of(scale),
    )


STUDY = Study("table2", "Iterative examples", "Table 2", evaluations, show)


# --- what the paper claims --------------------------------------------------------------------------------------------


def _not_iterative(scale: Scale, results: Results) -> list[Check]:
    found = networks(scale)
    return [
        check
        for attack in ATTACKS
        for check in accuracy_gains(
            scale,
            results,
            f"{TITLES[attack]}, adversarial over standard training",
            (found["adversarial"], attack),
            (found["baseline"], attack),
            below=10 * POINT,
        )
    ]


def _fools(scale: Scale, results: Results) -> list[Check]:
    baseline, eps = networks(scale)["baseline"], scale.eps[-1]
    error = share(results.accuracy(baseline, "iter_ll", eps).complement)
    return [Check(f"error of the standard network {at_eps(eps)}", error, above=0.99, unit="%")]


def _more_harmful(scale: Scale, results: Results) -> list[Check]:
    """Compared on the same images, the first of those that the one-step method was measured on."""
    baseline = networks(scale)["baseline"]
    return [
        Check(
            f"error of the standard network under {TITLES[attack]} over {TITLES[step]} {at_eps(eps)}",
            gain(
                results.accuracy_on_images_of(baseline, step, eps, images_of=attack),
                results.accuracy(baseline, attack, eps),
            ),
            above=0,
        )
        for attack, step in ONE_STEP.items()
        for eps in scale.eps
    ]


CLAIMS = (
    Claim(
        "not_iterative",
        "table2",
        "Table 2",
        "Training on step l.l. does not confer robustness to iterative methods: the gain is less than 10 points (at "
        "most 5.8), a bound chosen by us.",
        _not_iterative,
    ),
    Claim(
        "iter_ll_fools",
        "table2",
        "Section 2.2",
        "Iter. l.l. examples are misclassified by a standard network in more than 99 % of cases (99.3 % at eps 16); "
        "judged at the largest eps.",
        _fools,
    ),
    Claim(
        "iterative_more_harmful",
        "table2",
        "Section 2.1",
        "Iterative methods typically produce more harmful examples than one-step methods; judged by the errors of a "
        "standard network under iter. l.l. against step l.l., and under iter. basic against FGSM, at every eps.",
        _more_harmful,
        added_later=True,
    ),
)
