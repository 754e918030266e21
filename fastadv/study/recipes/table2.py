"""Table 2: the networks of Table 1 under iterative methods, which they were not trained on."""

from __future__ import annotations

from fastadv.study.layout import table_and_curves, tops_of
from fastadv.study.plan import Network, Robustness, Shown, Study
from fastadv.study.results import Results
from fastadv.study.scales import Scale

ATTACKS = ("iter_ll", "iter_basic")
ONE_STEP = {"iter_ll": "step_ll", "iter_basic": "fgsm"}


def networks(scale: Scale) -> dict[str, Network]:
    """By the rows of the paper's table."""
    return {"adversarial": scale.adversarial("Adv. training"), "baseline": scale.standard("Baseline")}


def evaluations(scale: Scale) -> list[Robustness]:
    """The table, and the baseline under the methods of one step that the iterative ones repeat."""
    found = networks(scale)
    return [*scale.sweep(found.values(), ATTACKS), *scale.sweep([found["baseline"]], tuple(ONE_STEP.values()))]


def show(scale: Scale, results: Results) -> Shown:
    """The table, and a panel for each method."""
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
