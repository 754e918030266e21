"""Section 4: adversarial training that starts after 0, 10k, 20k or 40k of 150k iterations."""

from __future__ import annotations

from fastadv.study.layout import Panel, Row, accuracy_figure, accuracy_table
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
    return [Robustness(tuple(networks(scale).values()), ("step_ll",), scale.eps, scale.limit)]


def show(scale: Scale, results: Results) -> Shown:
    """A table, of which the paper has words alone, and its curves."""
    found = networks(scale)
    rows = [Row((network.name,), network, "step_ll") for network in found.values()]
    note = "In brackets the paper's delay, of 150,000 iterations; it gives no table of this."
    table = accuracy_table(
        scale, results, rows, caption="Delayed start, step l.l.", labels=("Start",), tops=(1,), notes=(note,)
    )
    lines = [(network.name, network, "step_ll") for network in found.values()]
    return Shown({"delay": table}, {"delay": accuracy_figure(scale, results, [Panel("step l.l.", lines)])})


STUDY = Study("delay", "Delayed adversarial training", "Section 4", evaluations, show)
