"""Section 4: a delayed start."""

from __future__ import annotations

from fastadv.study.claims.common import POINT, clean_gain, over_eps
from fastadv.study.recipes import delay
from fastadv.study.results import Results
from fastadv.study.scales import Scale
from fastadv.study.verdicts import Check, Claim


def _delay_leaves_clean(scale: Scale, results: Results) -> list[Check]:
    found = delay.networks(scale)
    bound = 0.2 * POINT
    return [
        clean_gain(results, found[later], found[0], f"{later:,} over no delay", above=-bound, below=bound)
        for later in delay.OF_PAPER[1:]
    ]


def _short_delay_is_harmless(scale: Scale, results: Results) -> list[Check]:
    found = delay.networks(scale)
    one, other = (found[10_000], "step_ll"), (found[0], "step_ll")
    return over_eps(scale, results, "10,000 over no delay", one, other, above=-POINT, below=POINT)


def _late_is_less_robust(scale: Scale, results: Results) -> list[Check]:
    found = delay.networks(scale)
    one, other = (found[0], "step_ll"), (found[40_000], "step_ll")
    return over_eps(scale, results, "no delay over 40,000", one, other, above=0, sizes=scale.eps[-1:])


CLAIMS = (
    Claim(
        "delay_leaves_clean",
        "delay",
        "Section 4",
        "Delaying adversarial training changes clean accuracy by less than 0.2 points.",
        _delay_leaves_clean,
    ),
    Claim(
        "short_delay_is_harmless",
        "delay",
        "Section 4",
        "A delay of 10,000 iterations changes accuracy under step l.l. by nothing significant; judged by less than 1 "
        "point, a bound that is chosen: independent accuracies of 75 % on 50,000 images differ significantly from 0.5 "
        "points on.",
        _short_delay_is_harmless,
    ),
    Claim(
        "late_is_less_robust",
        "delay",
        "Section 4",
        "A delay of 40,000 iterations costs accuracy at high eps (up to 4 points); judged at the largest size.",
        _late_is_less_robust,
    ),
)
