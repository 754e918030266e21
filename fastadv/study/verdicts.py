"""The rule that turns figures with intervals into a verdict, the same for all claims."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fastadv.evaluate.intervals import Estimate, quantile
from fastadv.study.comparisons import Quantity
from fastadv.study.results import NotMeasured, Results
from fastadv.study.scales import Scale
from fastadv.utils.text import counted

HOLDS = "holds"
FAILS = "does not hold at this scale"
UNCLEAR = "inconclusive"
NOT_APPLICABLE = "not applicable at this scale"
NOT_MEASURED = "not measured"
MARKS = {HOLDS: "✓", FAILS: "✗", UNCLEAR: "?", NOT_APPLICABLE: "○", NOT_MEASURED: "-"}

RULE = (
    "A claim holds if the 95 % interval of each of its figures lies within the claimed bounds. It does not hold if "
    "the interval of one of its N figures lies entirely outside them at the level 1 - 0.05 / N (Bonferroni). "
    "Otherwise it is inconclusive. If one figure suffices for a claim, it is the other way round: the claim holds if "
    "one interval lies within the bounds at the level 1 - 0.05 / N, and does not hold if all lie outside at 95 %; the "
    "figure closest to holding is listed first. If a claim's premise does not hold, the claim is not applicable; if "
    "the premise is inconclusive, so is the claim. Intervals are shown at 95 %; the interval of the best of several "
    "figures covers all of them. Intervals account for the sampling of test images only. Accuracies on the same "
    "images are compared image by image. Counts of transfers and of leaked labels, and ratios of two networks, are "
    "treated as independent where nothing better is known, which makes intervals wider than necessary. The training "
    "seed changes accuracies as well: the study seeds shows by how much. Differences of that size say something about "
    "these networks, but not about the methods."
)

REASONS = (
    "Likely reasons were written after the verdicts were known. No measurement confirms them beyond those they cite."
)


@dataclass(frozen=True)
class Check:
    """A figure that is claimed to lie above a bound, below one, or between two.

    Args:
        what: description of the figure.
        figure: the value, as a fraction, with an interval for any quantile.
        above: lower bound (exclusive); None for none.
        below: upper bound (exclusive); None for none.
        unit: how to display it: "points" (percentage points), "%", or "" for a ratio.
        best_of: number of figures that this one was chosen from as the best; its interval covers all of them.
    """

    what: str
    figure: Quantity
    above: float | None = None
    below: float | None = None
    unit: str = "points"
    best_of: int = 1

    def estimate(self, comparisons: int = 1) -> Estimate:
        """The figure with its 95 % interval, wide enough for several comparisons to hold jointly at 95 %."""
        return self.figure(quantile(comparisons * self.best_of))

    def verdict(self, *, holding: int = 1, failing: int = 1) -> str:
        """HOLDS if the whole interval lies within the bounds, FAILS if it lies entirely outside.

        Args:
            holding: number of comparisons that the interval for HOLDS must cover jointly.
            failing: number of comparisons that the interval for FAILS must cover jointly.
        """
        to_fail, to_hold = self.estimate(failing), self.estimate(holding)
        if (self.above is not None and to_fail.high <= self.above) or (
            self.below is not None and to_fail.low >= self.below
        ):
            return FAILS
        if (self.above is None or to_hold.low > self.above) and (self.below is None or to_hold.high < self.below):
            return HOLDS
        return UNCLEAR

    @property
    def margin(self) -> float:
        """Distance to the nearer bound, in units of the half of the 95 % interval that points to it.

        At 1 and above, the whole interval is within the bounds. Negative outside the bounds, -inf if undefined.
        """
        found = self.estimate()
        if math.isnan(found.value):
            return -math.inf
        below, above = found.value - found.low, found.high - found.value
        rooms = [] if self.above is None else [_in_half_widths(found.value - self.above, below, above)]
        return min(rooms if self.below is None else [*rooms, _in_half_widths(self.below - found.value, above, below)])

    def __str__(self) -> str:
        factor, form = (1, ".3f") if self.unit == "" else (100, "+.1f" if self.unit == "points" else ".1f")
        bounds = [("> ", self.above), ("< ", self.below)]
        claimed = " and ".join(f"{sign}{factor * bound:g}" for sign, bound in bounds if bound is not None)
        found = self.estimate()
        if math.isnan(found.value):
            return f"{self.what}: undefined (nothing to divide by), claimed {claimed}"
        value, low, high = (format(factor * x, form) for x in (found.value, found.low, found.high))
        unit = f" {self.unit}" if self.unit else ""
        return f"{self.what}: {value} [{low}, {high}]{unit}, claimed {claimed}"


def _in_half_widths(room: float, half: float, other: float) -> float:
    """A distance to a bound divided by the half of the interval that points to the bound."""
    half = half if room > 0 else other
    return room / half if half > 0 else math.copysign(math.inf, room)


@dataclass(frozen=True)
class Claim:
    """A statement of the paper.

    Args:
        name: name of the claim.
        study: the study that measures it.
        source: the table, figure or section of the paper.
        text: what is claimed and checked, with the paper's own numbers.
        checks: makes the figures that decide.
        any_suffices: whether one check that holds is enough; otherwise all must hold.
        premise: a claim that this one presupposes: if it does not hold, there is nothing to judge.
        added_later: whether the claim was written after results were known.
    """

    name: str
    study: str
    source: str
    text: str
    checks: Callable[[Scale, Results], Sequence[Check]]
    any_suffices: bool = False
    premise: Claim | None = None
    added_later: bool = False

    @property
    def statement(self) -> str:
        """The text, with anything special about how the claim is judged."""
        parts = [self.text, "One figure suffices." if self.any_suffices else ""]
        parts.append(f"Premise: {self.premise.name}." if self.premise else "")
        parts.append("Added after the first results were known." if self.added_later else "")
        return " ".join(part for part in parts if part)


@dataclass(frozen=True)
class Finding:
    """The verdict on a claim.

    Args:
        claim: the claim.
        verdict: one of :data:`HOLDS`, :data:`FAILS`, :data:`UNCLEAR`, :data:`NOT_APPLICABLE`, :data:`NOT_MEASURED`.
        checks: the checks, each with its own verdict; empty if not measured.
    """

    claim: Claim
    verdict: str
    checks: tuple[tuple[Check, str], ...] = ()

    @property
    def deciding(self) -> Check | None:
        """The first check with the claim's verdict (the closest to holding if any suffices), or None."""
        matching = [check for check, verdict in self.checks if verdict == self.verdict]
        if self.claim.any_suffices:
            return max(matching, key=lambda check: check.margin, default=None)
        return next(iter(matching), None)

    @property
    def listed(self) -> list[tuple[Check, str]]:
        """The checks with their verdicts; if any suffices, the deciding one comes first."""
        first = self.deciding if self.claim.any_suffices else None
        return sorted(self.checks, key=lambda pair: pair[0] is not first)


def judge(claim: Claim, scale: Scale, results: Results) -> Finding:
    """Judge a claim by its weakest check, or by its strongest if any suffices; see :data:`RULE`."""
    try:
        checks = claim.checks(scale, results)
    except NotMeasured:
        return Finding(claim, NOT_MEASURED)
    # Correct the outcome that a single figure can cause, or it would come too often by chance.
    corrected = {"holding" if claim.any_suffices else "failing": len(checks)}
    judged = tuple((check, check.verdict(**corrected)) for check in checks)
    premise = HOLDS if claim.premise is None else judge(claim.premise, scale, results).verdict
    if premise != HOLDS:
        return Finding(claim, NOT_APPLICABLE if premise == FAILS else premise, judged)
    order = [HOLDS, UNCLEAR, FAILS] if claim.any_suffices else [FAILS, UNCLEAR, HOLDS]
    verdicts = {verdict for _, verdict in judged}
    return Finding(claim, next(verdict for verdict in order if verdict in verdicts), judged)


def summary(found: Sequence[Finding]) -> str:
    """The number of claims with each verdict."""
    counts = {verdict: sum(finding.verdict == verdict for finding in found) for verdict in MARKS}
    parts = [f"{MARKS[verdict]} {verdict}: {count}" for verdict, count in counts.items() if count]
    return f"{counted(len(found), 'claim')}. {'; '.join(parts)}."
