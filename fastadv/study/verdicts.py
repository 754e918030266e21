"""From figures with intervals to a verdict: a rule, the same for all claims."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fastadv.evaluate.statistics import Estimate, combination, ratio, wilson
from fastadv.study.results import NotMeasured, Results, Share
from fastadv.study.scales import Scale

HOLDS = "holds"
FAILS = "does not hold at this scale"
UNCLEAR = "too small to tell"
MISSING = "not measured"


@dataclass(frozen=True)
class Check:
    """A figure that is claimed to lie above or below something, or between two.

    Args:
        what: it is.
        estimate: the figure with its 95 % interval, a fraction.
        above: what it must be more than; None for no such bound.
        below: what it must be less than.
        unit: "points" (of a percentage), "%" or "" (a ratio), for showing it.
    """

    what: str
    estimate: Estimate
    above: float | None = None
    below: float | None = None
    unit: str = "points"

    @property
    def verdict(self) -> str:
        """Holds if the whole interval lies within the bounds, and fails if it lies wholly outside of them."""
        low, high = self.estimate.low, self.estimate.high
        if (self.above is not None and high <= self.above) or (self.below is not None and low >= self.below):
            return FAILS
        if (self.above is None or low > self.above) and (self.below is None or high < self.below):
            return HOLDS
        return UNCLEAR

    def __str__(self) -> str:
        factor, form = (1, ".3f") if self.unit == "" else (100, "+.1f" if self.unit == "points" else ".1f")
        value, low, high = (
            format(factor * x, form) for x in (self.estimate.value, self.estimate.low, self.estimate.high)
        )
        bounds = [("> ", self.above), ("< ", self.below)]
        claimed = " and ".join(f"{sign}{factor * bound:g}" for sign, bound in bounds if bound is not None)
        unit = f" {self.unit}" if self.unit else ""
        return f"{self.what}: {value} [{low}, {high}]{unit}, claimed {claimed}"


@dataclass(frozen=True)
class Claim:
    """Something that the paper says.

    Args:
        name: of the claim.
        study: that measures it.
        source: where it is in the paper.
        text: what is claimed, with what the paper measured.
        checks: the figures that decide.
        any_suffices: one check that holds is enough; otherwise all must.
    """

    name: str
    study: str
    source: str
    text: str
    checks: Callable[[Scale, Results], Sequence[Check]]
    any_suffices: bool = False


@dataclass(frozen=True)
class Finding:
    """What became of a claim.

    Args:
        claim: it.
        verdict: one of :data:`HOLDS`, :data:`FAILS`, :data:`UNCLEAR`, :data:`MISSING`.
        checks: with their figures; none if not measured.
    """

    claim: Claim
    verdict: str
    checks: tuple[Check, ...] = ()

    @property
    def deciding(self) -> Check | None:
        """The first figure that has the claim's verdict; None if not measured."""
        return next((check for check in self.checks if check.verdict == self.verdict), None)


def judge(claim: Claim, scale: Scale, results: Results) -> Finding:
    """The verdict on a claim: by its weakest check, or by its strongest if any suffices."""
    try:
        checks = tuple(claim.checks(scale, results))
    except NotMeasured:
        return Finding(claim, MISSING)
    order = [HOLDS, UNCLEAR, FAILS] if claim.any_suffices else [FAILS, UNCLEAR, HOLDS]
    verdicts = {check.verdict for check in checks}
    return Finding(claim, next(verdict for verdict in order if verdict in verdicts), checks)


# --- figures ---------------------------------------------------------------------------------------------------------


def share(found: Share, z: float = 1.96) -> Estimate:
    """A fraction with Wilson's interval; of nothing, such as the images of a source that none fooled, it may be any."""
    if found.n == 0:
        return Estimate(0.5, 0.0, 1.0)
    return wilson(found.successes, found.n, z)


def gain(one: Share, other: Share, z: float = 1.96) -> Estimate:
    """By how much the first fraction is larger."""
    return combination([(1, share(one, z)), (-1, share(other, z))])


def quotient_gain(one: tuple[Share, Share], other: tuple[Share, Share]) -> Estimate:
    """By how much the first quotient of two fractions is larger."""
    return combination([(1, ratio(share(one[0]), share(one[1]))), (-1, ratio(share(other[0]), share(other[1])))])
