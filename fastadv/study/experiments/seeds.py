"""Not in the paper: how much the seed changes accuracies, which the intervals of claims do not cover."""

from __future__ import annotations

import itertools

from fastadv.evaluate.intervals import quantile
from fastadv.evaluate.tables import INTERVALS, Cell, Table
from fastadv.study.comparisons import gain
from fastadv.study.evaluations import Robustness
from fastadv.study.layout import TITLES, accuracies, fraction, gradient_notes, images_note
from fastadv.study.networks import Network
from fastadv.study.plan import Study, StudyOutput
from fastadv.study.results import Results, Share
from fastadv.study.scales import Scale
from fastadv.study.verdicts import Claim

ATTACKS = ("step_ll", "iter_ll", "iter_basic")
SEEDS = (0, 1)


def networks(scale: Scale) -> dict[tuple[str, int], Network]:
    """Networks keyed by training, "standard" or "adversarial", and seed; the base networks have seed 0."""
    made = {}
    for seed in SEEDS:
        changes = {"seed": seed} if seed else {}
        made["standard", seed] = scale.standard(f"standard, seed {seed}", changes)
        made["adversarial", seed] = scale.adversarial(f"adversarial, seed {seed}", changes)
    return made


def evaluations(scale: Scale) -> list[Robustness]:
    """One sweep."""
    return scale.sweep(networks(scale).values(), ATTACKS)


def show(scale: Scale, results: Results) -> StudyOutput:
    """One table: accuracies with both seeds, and their differences."""
    found = networks(scale)
    rows: list[tuple[Cell, ...]] = []
    for attack in ATTACKS:
        for training in ("standard", "adversarial"):
            one, other = (accuracies(scale, results, found[training, seed], attack) for seed in SEEDS)
            for seed, shares in zip(SEEDS, (one, other), strict=True):
                rows.append((TITLES[attack], training, f"{seed}", *map(fraction, shares)))
            apart = (_points(after, before) for before, after in zip(one, other, strict=True))
            rows.append((TITLES[attack], training, "1 over 0", *apart))
    header = ("Adv. method", "Training", "Seed", "Clean", *(f"eps = {eps:g}" for eps in scale.eps))
    records = [results.record(found["standard", 0], attack, scale.eps[0]) for attack in ATTACKS]
    notes = (
        f"{images_note(records)}. {INTERVALS} Differences are in points. All intervals account for the sampling of "
        "test images only.",
        *gradient_notes(scale, results, itertools.product(found.values(), ATTACKS)),
        "The seed determines the initial weights and the order of the images. Two seeds show the order of magnitude of "
        "its effect, but do not measure it.",
    )
    return StudyOutput({"seeds": Table("Another seed", header, tuple(rows), labels=3, notes=notes)}, {})


def _points(one: Share, other: Share) -> str:
    found = gain(one, other)(quantile())
    value, low, high = (f"{100 * x:+.1f}" for x in (found.value, found.low, found.high))
    return f"{value} [{low}, {high}]"


STUDY = Study("seeds", "Effect of the seed", "not in the paper", evaluations, show)
CLAIMS: tuple[Claim, ...] = ()  # the paper makes no claims about seeds
