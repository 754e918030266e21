"""Table 2 and section 2.2: iterative methods."""

from __future__ import annotations

from fastadv.study.claims.common import POINT, at, over_eps
from fastadv.study.comparisons import gain, share
from fastadv.study.layout import TITLES
from fastadv.study.recipes import table2
from fastadv.study.results import Results
from fastadv.study.scales import Scale
from fastadv.study.verdicts import Check, Claim


def _not_iterative(scale: Scale, results: Results) -> list[Check]:
    found = table2.networks(scale)
    return [
        check
        for attack in table2.ATTACKS
        for check in over_eps(
            scale,
            results,
            f"{TITLES[attack]}, adversarial over standard training",
            (found["adversarial"], attack),
            (found["baseline"], attack),
            below=10 * POINT,
        )
    ]


def _fools(scale: Scale, results: Results) -> list[Check]:
    baseline, eps = table2.networks(scale)["baseline"], scale.eps[-1]
    error = share(results.accuracy(baseline, "iter_ll", eps).wrong)
    return [Check(f"error of the standard network {at(eps)}", error, above=0.99, unit="%")]


def _more_harmful(scale: Scale, results: Results) -> list[Check]:
    """On the same images: the first of those that the one step was measured on."""
    baseline = table2.networks(scale)["baseline"]
    return [
        Check(
            f"error of the standard network under {TITLES[attack]} over {TITLES[step]} {at(eps)}",
            gain(
                results.accuracy_beside(baseline, step, eps, beside=attack),
                results.accuracy(baseline, attack, eps),
            ),
            above=0,
        )
        for attack, step in table2.ONE_STEP.items()
        for eps in scale.eps
    ]


CLAIMS = (
    Claim(
        "not_iterative",
        "table2",
        "Table 2",
        "Training on step l.l. does not confer robustness to iterative methods: it gains less than 10 points (at most "
        "5.8); the bound is chosen.",
        _not_iterative,
    ),
    Claim(
        "iter_ll_fools",
        "table2",
        "Section 2.2",
        "Iter. l.l. examples are misclassified by a standard network in more than 99 % of cases (99.3 % at eps 16); "
        "judged at the largest size.",
        _fools,
    ),
    Claim(
        "iterative_more_harmful",
        "table2",
        "Section 2.1",
        "Iterative methods typically produce more harmful examples than methods of one step; judged by the errors of "
        "a standard network under iter. l.l. against step l.l. and iter. basic against FGSM, at every size.",
        _more_harmful,
        added=True,
    ),
)
