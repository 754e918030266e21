"""Section 4: adversarial training that starts after 0, 10k, 20k or 40k of 150k iterations."""

from __future__ import annotations

from fastadv.study.checks import POINT, accuracy_gains, clean_gain
from fastadv.study.evaluations import Robustness
from fastadv.study.layout import table_and_curves
from fastadv.study.networks import Network
from fastadv.study.plan import Study, StudyOutput
from fastadv.study.results import Results
from fastadv.study.scales import Scale
from fastadv.study.verdicts import Check, Claim

PAPER_DELAYS = (0, 10_000, 20_000, 40_000)


def networks(scale: Scale) -> dict[int, Network]:
    """Networks keyed by the paper's delay; the base network has 10,000."""
    made = {}
    for delay in PAPER_DELAYS:
        here = delay * scale.base.attack.start_after // 10_000
        made[delay] = scale.adversarial(f"After {here:,} iterations ({delay:,})", {"attack.start_after": here})
    return made


def evaluations(scale: Scale) -> list[Robustness]:
    """One sweep."""
    return scale.sweep(networks(scale).values(), ["step_ll"])


def show(scale: Scale, results: Results) -> StudyOutput:
    """A table, which the paper does not have, and its curves."""
    return table_and_curves(
        scale,
        results,
        networks(scale),
        ["step_ll"],
        name="delay",
        caption="Delayed start, step l.l.",
        label="Start",
        notes=["In brackets the paper's delay, out of 150,000 iterations. The paper has no table of this."],
        reference=0,
    )


STUDY = Study("delay", "Delayed adversarial training", "Section 4", evaluations, show)


# --- what the paper claims --------------------------------------------------------------------------------------------


def _delay_leaves_clean(scale: Scale, results: Results) -> list[Check]:
    found = networks(scale)
    bound = 0.2 * POINT
    return [
        clean_gain(results, found[later], found[0], f"{later:,} over no delay", above=-bound, below=bound)
        for later in PAPER_DELAYS[1:]
    ]


def _short_delay_is_harmless(scale: Scale, results: Results) -> list[Check]:
    found = networks(scale)
    one, other = (found[10_000], "step_ll"), (found[0], "step_ll")
    return accuracy_gains(scale, results, "10,000 over no delay", one, other, above=-POINT, below=POINT)


def _late_is_less_robust(scale: Scale, results: Results) -> list[Check]:
    found = networks(scale)
    one, other = (found[0], "step_ll"), (found[40_000], "step_ll")
    return accuracy_gains(scale, results, "no delay over 40,000", one, other, above=0, sizes=scale.eps[-1:])


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
        "A delay of 10,000 iterations does not change accuracy under step l.l. significantly; judged by a change of "
        "less than 1 point, a bound chosen by us: independent accuracies of 75 % on 50,000 images differ significantly "
        "from 0.5 points on.",
        _short_delay_is_harmless,
    ),
    Claim(
        "late_is_less_robust",
        "delay",
        "Section 4",
        "A delay of 40,000 iterations costs accuracy at high eps (up to 4 points); judged at the largest eps.",
        _late_is_less_robust,
    ),
)
