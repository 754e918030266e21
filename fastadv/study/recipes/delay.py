"""Section 4: adversarial training that starts after 0, 10k, 20k or 40k of 150k iterations."""

from __future__ import annotations

from fastadv.study.layout import table_and_curves
from fastadv.study.plan import Network, Robustness, Shown, Study
from fastadv.study.results import Results
from fastadv.study.scales import Scale

OF_PAPER = (0, 10_000, 20_000, 40_000)


def networks(scale: Scale) -> dict[int, Network]:
    """By the paper's delay; the base network has its 10,000."""
    made = {}
    for delay in OF_PAPER:
        here = delay * scale.base.attack.start_after // 10_000
        made[delay] = scale.adversarial(f"After {here:,} iterations ({delay:,})", {"attack.start_after": here})
    return made


def evaluations(scale: Scale) -> list[Robustness]:
    """One sweep."""
    return scale.sweep(networks(scale).values(), ["step_ll"])


def show(scale: Scale, results: Results) -> Shown:
    """A table, of which the paper has words alone, and its curves."""
    return table_and_curves(
        scale,
        results,
        networks(scale),
        ["step_ll"],
        name="delay",
        caption="Delayed start, step l.l.",
        label="Start",
        notes=["In brackets the paper's delay, of 150,000 iterations; it gives no table of this."],
        against=0,
    )


STUDY = Study("delay", "Delayed adversarial training", "Section 4", evaluations, show)
