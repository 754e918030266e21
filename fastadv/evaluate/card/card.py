"""Card: what was measured of some networks under a suite of attacks, and what puts it in doubt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from fastadv.evaluate.card.anytime import anytime_interval
from fastadv.evaluate.card.examples import Example
from fastadv.evaluate.checks import Finding
from fastadv.evaluate.intervals import Proportion, proportion
from fastadv.evaluate.records import CLEAN, Record
from fastadv.utils.validation import check_one_of

Hits = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Card:
    """The robustness card of one or more networks.

    Args:
        suite: its name.
        records: of each network, clean and under each attack at each eps, on the same images.
        findings: signs of a masked gradient, by the name of the network; none for a network without any.
        checked: number of images that the checks looked at.
        check_seconds: how long that took.
        examples: images that are fooled at the smallest eps.
        until: the half width, in points, at which drawing images was stopped; None if all were measured.
    """

    suite: str
    records: Sequence[Record] = field(repr=False)
    findings: Mapping[str, Sequence[Finding]]
    checked: int
    check_seconds: float
    examples: Sequence[Example] = field(default=(), repr=False)
    until: float | None = None

    @property
    def models(self) -> list[str]:
        """Names of the networks."""
        return list(dict.fromkeys(record.model for record in self.records))

    @property
    def attacks(self) -> list[str]:
        """The attacks, as on the command line."""
        return list(dict.fromkeys(record.attack for record in self.records if record.attack != CLEAN))

    @property
    def sizes(self) -> list[float]:
        """Each eps, in pixel values."""
        return sorted({record.eps for record in self.records if record.attack != CLEAN})

    def record(self, model: str, attack: str, eps: float) -> Record:
        """Return the record of a network under an attack.

        Raises:
            ValueError: if there is none.
        """
        check_one_of("model", model, self.models)
        check_one_of("attack", attack, (CLEAN, *self.attacks))
        self._check_eps(eps, (0.0,) if attack == CLEAN else self.sizes)
        return next(r for r in self.records if (r.model, r.attack, r.eps) == (model, attack, eps))

    def accuracy(self, model: str, attack: str, eps: float) -> Proportion:
        """Return the accuracy of a network under an attack, or on clean images (eps 0)."""
        return self.interval(self.record(model, attack, eps).hits)

    def worst_case(self, model: str, eps: float) -> Proportion:
        """Return the share of images that a network classifies correctly when clean and under each attack.

        Raises:
            ValueError: if the network or the eps was not measured.
        """
        check_one_of("model", model, self.models)
        self._check_eps(eps, self.sizes)
        return self.interval(worst_hits([r for r in self.records if r.model == model], eps))

    def lowest(self) -> tuple[str, float, Proportion]:
        """Return the network and the eps with the lowest worst case, and that."""
        cases = [(model, eps, self.worst_case(model, eps)) for model in self.models for eps in self.sizes]
        return min(cases, key=lambda case: case[2].value)

    def _check_eps(self, eps: float, measured: Sequence[float]) -> None:
        if eps not in measured:
            raise ValueError(
                f"eps must be one that was measured, {', '.join(f'{one:g}' for one in measured)}, got {eps:g}"
            )

    def interval(self, hits: Hits) -> Proportion:  # [n]
        """Return a share with Wilson's interval, or after an early stop with the one that it does not spoil."""
        found = proportion(int(hits.sum()), len(hits))
        if self.until is None:
            return found
        anytime = anytime_interval(int(hits.sum()), len(hits), self.records[0].total)
        return Proportion(found.value, found.half_width, anytime.low, anytime.high)


def worst_hits(records: Sequence[Record], eps: float) -> Hits:
    """Which images [n] one network classifies correctly when clean and under each attack of this size."""
    hits = np.stack([record.hits for record in records if record.attack == CLEAN or record.eps == eps])  # [attacks, n]
    return np.asarray(hits.all(axis=0))
