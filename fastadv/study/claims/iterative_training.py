"""Section 4.1: training on iterative examples."""

from __future__ import annotations

from fastadv.study.claims.common import POINT, clean_gain, over_eps
from fastadv.study.layout import TITLES
from fastadv.study.recipes import iterative_training
from fastadv.study.results import Results
from fastadv.study.scales import Scale
from fastadv.study.verdicts import Check, Claim


def _iterative_costs(scale: Scale, results: Results) -> list[Check]:
    found = iterative_training.networks(scale)
    return [
        clean_gain(
            results,
            found["standard"],
            found[kind],
            f"standard over training on {TITLES[kind]}",
            above=POINT,
            beside=kind,
            eps=scale.eps[0],
        )
        for kind in iterative_training.ATTACKS
    ]


def _iterative_gains_nothing(scale: Scale, results: Results) -> list[Check]:
    found = iterative_training.networks(scale)
    return [
        check
        for kind in iterative_training.ATTACKS
        for check in over_eps(
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
        "Training on iterative examples reduces clean accuracy significantly: by more than the 1 point that is slight.",
        _iterative_costs,
    ),
    Claim(
        "iterative_gains_nothing",
        "iterative_training",
        "Section 4.1",
        "Training on iterative examples gives no robustness to them; judged by a gain of less than 10 points over "
        "training on step l.l., a bound that is chosen.",
        _iterative_gains_nothing,
    ),
)
