"""Results: what was measured, found by network. All tables, figures and claims are made from it alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from fastadv.evaluate.label_leaking import LeakRecord
from fastadv.evaluate.records import CLEAN, Record
from fastadv.evaluate.transfer import TransferRecord
from fastadv.study.networks import Network


class NotMeasured(LookupError):
    """There is no record of what was asked for; the message says of what."""


@dataclass(frozen=True)
class Share:
    """``successes`` of ``n``.

    Args:
        successes: how many.
        n: of how many.
        hits: which of the n, [n] bool; None if that is not known.
        images: what the n are: hits of the same images belong together.
    """

    successes: int
    n: int
    hits: npt.NDArray[np.bool_] | None = field(default=None, compare=False, repr=False)
    images: str = field(default="", compare=False, repr=False)

    @property
    def wrong(self) -> Share:
        """The others."""
        return Share(self.n - self.successes, self.n, None if self.hits is None else ~self.hits, self.images)


class Results:
    """Records by network, attack and size. Of what was measured twice the last counts.

    Args:
        robustness: records whose ``model`` is a network's id.
        transfer: the same of ``source`` and ``target``.
        leaking: the same of ``model``.
    """

    def __init__(
        self,
        robustness: Sequence[Record] = (),
        transfer: Sequence[TransferRecord] = (),
        leaking: Sequence[LeakRecord] = (),
    ) -> None:
        self._accuracy = {(r.model, r.attack, r.eps, r.n): r for r in robustness}
        self._most: dict[tuple[str, str, float], Record] = {}
        for record in robustness:
            place = (record.model, record.attack, record.eps)
            if place not in self._most or self._most[place].n <= record.n:
                self._most[place] = record
        self._transfer = {(r.source, r.target, r.attack, r.eps): r for r in transfer}
        self._leaking = {(r.model, r.attack, r.without, r.eps): r for r in leaking}

    def record(self, network: Network, attack: str, eps: float) -> Record:
        """Of the most images that were measured.

        Raises:
            NotMeasured: there is none.
        """
        found = self._most.get((network.id, attack, float(eps)))
        if found is None:
            raise NotMeasured(f"{network.name} under {attack}, eps = {eps:g}")
        return found

    def accuracy(self, network: Network, attack: str, eps: float, top: int = 1) -> Share:
        """Images classified correctly.

        Raises:
            NotMeasured: there is no record, or no top 5.
        """
        found = _share(self.record(network, attack, eps), top)
        if found is None:
            raise NotMeasured(f"top {top} of {network.name}")
        return found

    def clean(self, network: Network, top: int = 1, *, beside: str = CLEAN, eps: float = 0) -> Share:
        """Clean images classified correctly, of those that an attack ``beside`` was measured on.

        Raises:
            NotMeasured: there is no record.
        """
        found = _share(self._clean_record(network, self.record(network, beside, eps).n), top)
        if found is None:
            raise NotMeasured(f"top {top} of {network.name}, clean")
        return found

    def _clean_record(self, network: Network, n: int) -> Record:
        found = self._accuracy.get((network.id, CLEAN, 0.0, n))
        if found is None:
            raise NotMeasured(f"clean accuracy of {network.name} on {n} images")
        return found

    def accuracy_beside(self, network: Network, attack: str, eps: float, *, beside: str) -> Share:
        """Images classified correctly at top 1, of those that an attack ``beside`` was measured on: the first so many.

        Raises:
            NotMeasured: there is no record, or none of which images were hit, or ``beside`` is of other images.
        """
        found, n = self.record(network, attack, eps), self.record(network, beside, eps).n
        every, few = self._clean_record(network, found.n), self._clean_record(network, n)
        if not np.array_equal(every.hits[:n], few.hits):
            raise NotMeasured(f"{network.name} under {attack} on the images of {beside}")
        hits = found.hits[:n]  # [n]
        return Share(int(np.count_nonzero(hits)), n, hits, few.images)

    def transfer(self, source: Network, target: Network, attack: str, eps: float) -> TransferRecord:
        """Images made with one network and shown to another.

        Raises:
            NotMeasured: there is no record.
        """
        found = self._transfer.get((source.id, target.id, attack, float(eps)))
        if found is None:
            raise NotMeasured(f"transfer of {attack} from {source.name} to {target.name}, eps = {eps:g}")
        return replace(found, source=source.name, target=target.name)

    def leaking(self, network: Network, attack: str, without: str, eps: float) -> LeakRecord:
        """Labels leaked.

        Raises:
            NotMeasured: there is no record.
        """
        found = self._leaking.get((network.id, attack, without, float(eps)))
        if found is None:
            raise NotMeasured(f"labels that {network.name} leaks under {attack}, eps = {eps:g}")
        return found


def _share(record: Record, top: int) -> Share | None:
    """Images classified correctly; None if top 5 was not measured. Which they are is recorded for top 1 alone."""
    if top == 1:
        return Share(record.top1, record.n, record.hits, record.images)
    return None if record.top5 is None else Share(record.top5, record.n)
