"""Section 4: other regularisers."""

from __future__ import annotations

from fastadv.study.claims.common import POINT, clean_gain, over_eps
from fastadv.study.recipes import regularizers
from fastadv.study.results import Results
from fastadv.study.scales import Scale
from fastadv.study.verdicts import Check, Claim


def _without_two(scale: Scale, results: Results) -> list[Check]:
    found = regularizers.networks(scale)
    return [
        clean_gain(results, found["none"], found[off], f"all three over without {off}", above=0, below=POINT)
        for off in ("dropout", "smoothing", "both")
    ]


def _without_two_robust(scale: Scale, results: Results) -> list[Check]:
    found = regularizers.networks(scale)
    return [
        check
        for off in ("dropout", "smoothing", "both")
        for check in over_eps(
            scale,
            results,
            f"without {off} over all three",
            (found[off], "step_ll"),
            (found["none"], "step_ll"),
            above=0,
            sizes=scale.eps[-1:],
        )
    ]


def _without_decay(scale: Scale, results: Results) -> list[Check]:
    found = regularizers.networks(scale)
    one, other = (found["none"], "step_ll"), (found["decay"], "step_ll")
    clean = clean_gain(results, found["none"], found["decay"], "all three over without weight decay", above=0)
    what = "all three over without weight decay"
    return [clean, *over_eps(scale, results, what, one, other, above=0, sizes=scale.eps[-1:])]


CLAIMS = (
    Claim(
        "without_two",
        "regularizers",
        "Section 4",
        "Without dropout, label smoothing or both, clean accuracy falls, by less than 1 point (0.1 to 0.5).",
        _without_two,
    ),
    Claim(
        "without_two_robust",
        "regularizers",
        "Section 4",
        "Without dropout, label smoothing or both, accuracy under step l.l. rises (by 1 to 1.5 points); judged at the "
        "largest size.",
        _without_two_robust,
    ),
    Claim(
        "without_decay",
        "regularizers",
        "Section 4",
        "Less weight decay reduces accuracy on clean and on adversarial images; judged by none at all, under step l.l. "
        "at the largest size.",
        _without_decay,
    ),
)
