"""From figures with intervals to a verdict: a rule, the same for all claims."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fastadv.evaluate.intervals import Estimate, quantile
from fastadv.study.comparisons import Quantity
from fastadv.study.results import NotMeasured, Results
from fastadv.study.scales import Scale

HOLDS = "holds"
FAILS = "does not hold at this scale"
UNCLEAR = "too small to tell"
ABSENT = "does not arise at this scale"
MISSING = "not measured"
MARKS = {HOLDS: "✓", FAILS: "✗", UNCLEAR: "?", ABSENT: "○", MISSING: "-"}

RULE = (
    "A claim holds if the 95 % interval of every figure lies within what is claimed. It does not hold if the interval "
    "of one of its N figures lies wholly outside at the level 1 - 0.05 / N (Bonferroni). Otherwise it is too small to "
    "tell. Where one figure is enough it is the reverse: one interval within at the level 1 - 0.05 / N, or all of "
    "them outside at 95 %; the figure nearest to holding is then shown first. A claim whose premise does not hold "
    "does not arise; where the premise is too small to tell, so is the claim. Intervals are shown at 95 %; that of "
    "the best of several figures covers them all. They are of the draw of test images alone. Accuracies on the same "
    "images are compared image by image; counts of transfers and of leaked labels, and the ratios of two networks, "
    "are taken for independent where nothing better is known, which makes intervals wider than need be. Another seed "
    "of training moves accuracies, too: the study seeds shows by how much, and differences of that size are of these "
    "networks and not of the methods."
)

REASONS = (
    "A likely reason was written when the verdict was known, and nothing was measured to confirm it but what it names."
)


@dataclass(frozen=True)
class Check:
    """A figure that is claimed to lie above or below something, or between two.

    Args:
        what: it is.
        figure: with an interval for any quantile, a fraction.
        above: what it must be more than; None for no such bound.
        below: what it must be less than.
        unit: "points" (of a percentage), "%" or "" (a ratio), for showing it.
        among: how many figures it is the best of, by the same records: its intervals cover all of them together.
    """

    what: str
    figure: Quantity
    above: float | None = None
    below: float | None = None
    unit: str = "points"
    among: int = 1

    def estimate(self, comparisons: int = 1) -> Estimate:
        """The figure with its 95 % interval, or so wide that those of several comparisons hold together at 95 %."""
        return self.figure(quantile(comparisons * self.among))

    def verdict(self, *, holding: int = 1, failing: int = 1) -> str:
        """Holds if the whole interval lies within the bounds, and fails if it lies wholly outside of them.

        Args:
            holding: comparisons that the interval for the first covers together.
            failing: those that the interval for the second does.
        """
        wrong, right = self.estimate(failing), self.estimate(holding)
        if (self.above is not None and wrong.high <= self.above) or (
            self.below is not None and wrong.low >= self.below
        ):
            return FAILS
        if (self.above is None or right.low > self.above) and (self.below is None or right.high < self.below):
            return HOLDS
        return UNCLEAR

    @property
    def nearness(self) -> float:
        """How far within the bounds the figure is, by the half of its 95 % interval that points to the nearer one.

        From 1 on the whole interval is within; a figure outside has a negative number, one of nothing the least of all.
        """
        found = self.estimate()
        if math.isnan(found.value):
            return -math.inf
        below, above = found.value - found.low, found.high - found.value
        rooms = [] if self.above is None else [_by_half(found.value - self.above, below, above)]
        return min(rooms if self.below is None else [*rooms, _by_half(self.below - found.value, above, below)])

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


def _by_half(room: float, half: float, other: float) -> float:
    """The room to a bound by the half of the interval that points to it, the other half from beyond."""
    half = half if room > 0 else other
    return room / half if half > 0 else math.copysign(math.inf, room)


@dataclass(frozen=True)
class Claim:
    """Something that the paper says.

    Args:
        name: of the claim.
        study: that measures it.
        source: where it is in the paper.
        text: what is claimed and checked, with what the paper measured.
        checks: the figures that decide.
        any_suffices: one check that holds is enough; otherwise all must.
        premise: another claim, of the effect that this one is about: where it does not hold, there is nothing to judge.
        added: when results had been measured already, so that its bounds were not fixed before all figures were known.
    """

    name: str
    study: str
    source: str
    text: str
    checks: Callable[[Scale, Results], Sequence[Check]]
    any_suffices: bool = False
    premise: Claim | None = None
    added: bool = False

    @property
    def stated(self) -> str:
        """The text, and what is special about how it is judged."""
        parts = [self.text, "One figure is enough." if self.any_suffices else ""]
        parts.append(f"Premise: {self.premise.name}." if self.premise else "")
        parts.append("Added after the first results." if self.added else "")
        return " ".join(part for part in parts if part)


@dataclass(frozen=True)
class Finding:
    """What became of a claim.

    Args:
        claim: it.
        verdict: one of :data:`HOLDS`, :data:`FAILS`, :data:`UNCLEAR`, :data:`ABSENT`, :data:`MISSING`.
        checks: with their figures, each with its own verdict; none if not measured.
    """

    claim: Claim
    verdict: str
    checks: tuple[tuple[Check, str], ...] = ()

    @property
    def deciding(self) -> Check | None:
        """The first figure that has the claim's verdict, if any suffices the nearest to holding; None if none has."""
        having = [check for check, verdict in self.checks if verdict == self.verdict]
        if self.claim.any_suffices:
            return max(having, key=lambda check: check.nearness, default=None)
        return next(iter(having), None)

    @property
    def listed(self) -> list[tuple[Check, str]]:
        """The checks with their verdicts; if any suffices, the one that decides before the others."""
        first = self.deciding if self.claim.any_suffices else None
        return sorted(self.checks, key=lambda pair: pair[0] is not first)


def judge(claim: Claim, scale: Scale, results: Results) -> Finding:
    """The verdict on a claim: by its weakest check, or by its strongest if any suffices; see :data:`RULE`."""
    try:
        checks = claim.checks(scale, results)
    except NotMeasured:
        return Finding(claim, MISSING)
    # The outcome that one figure can bring about would come too often by chance.
    corrected = {"holding" if claim.any_suffices else "failing": len(checks)}
    judged = tuple((check, check.verdict(**corrected)) for check in checks)
    premise = HOLDS if claim.premise is None else judge(claim.premise, scale, results).verdict
    if premise != HOLDS:
        return Finding(claim, ABSENT if premise == FAILS else premise, judged)
    order = [HOLDS, UNCLEAR, FAILS] if claim.any_suffices else [FAILS, UNCLEAR, HOLDS]
    verdicts = {verdict for _, verdict in judged}
    return Finding(claim, next(verdict for verdict in order if verdict in verdicts), judged)


def summary(found: Sequence[Finding]) -> str:
    """How many claims there are of each verdict."""
    counts = {verdict: sum(finding.verdict == verdict for finding in found) for verdict in MARKS}
    parts = [f"{MARKS[verdict]} {count} {verdict}" for verdict, count in counts.items() if count]
    return f"{len(found)} {'claim' if len(found) == 1 else 'claims'}: {', '.join(parts)}."
