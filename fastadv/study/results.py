"""Looks up measurements by network. Tables, figures and claims are made from nothing else."""

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
    """Raised if there is no record of a measurement; the message names it."""


@dataclass(frozen=True)
class Share:
    """A number of successes among ``n`` images.

    Args:
        successes: number of successes.
        n: number of images.
        hits: which images were successes, [n] bool; None if not known.
        images: identifies the set of images: hits on the same set are compared image by image.
    """

    successes: int
    n: int
    hits: npt.NDArray[np.bool_] | None = field(default=None, compare=False, repr=False)
    images: str = field(default="", compare=False, repr=False)

    @property
    def complement(self) -> Share:
        """The images that were not successes."""
        return Share(self.n - self.successes, self.n, None if self.hits is None else ~self.hits, self.images)


class Results:
    """Records by network, attack and eps. If something was measured twice, the last record counts.

    Args:
        robustness: records whose ``model`` is a network's id.
        transfer: records whose ``source`` and ``target`` are ids of networks.
        leaking: records whose ``model`` is a network's id.
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
        """The record that was measured on the most images.

        Raises:
            NotMeasured: if there is none.
        """
        found = self._most.get((network.id, attack, float(eps)))
        if found is None:
            raise NotMeasured(f"{network.name} under {attack}, eps = {eps:g}")
        return found

    def accuracy(self, network: Network, attack: str, eps: float, top: int = 1) -> Share:
        """Images classified correctly.

        Raises:
            NotMeasured: if there is no record, or top 5 was not measured.
        """
        found = _share(self.record(network, attack, eps), top)
        if found is None:
            raise NotMeasured(f"top {top} of {network.name}")
        return found

    def clean(self, network: Network, top: int = 1, *, images_of: str = CLEAN, eps: float = 0) -> Share:
        """Clean images classified correctly, among those that the attack ``images_of`` was measured on.

        Raises:
            NotMeasured: if there is no record.
        """
        found = _share(self._clean_record(network, self.record(network, images_of, eps).n), top)
        if found is None:
            raise NotMeasured(f"top {top} of {network.name}, clean")
        return found

    def _clean_record(self, network: Network, n: int) -> Record:
        found = self._accuracy.get((network.id, CLEAN, 0.0, n))
        if found is None:
            raise NotMeasured(f"clean accuracy of {network.name} on {n} images")
        return found

    def accuracy_on_images_of(self, network: Network, attack: str, eps: float, *, images_of: str) -> Share:
        """Images classified correctly at top 1, among those that the attack ``images_of`` was measured on.

        These must be the first of the images that ``attack`` was measured on.

        Raises:
            NotMeasured: if there is no record, or ``images_of`` was measured on other images.
        """
        found, n = self.record(network, attack, eps), self.record(network, images_of, eps).n
        every, few = self._clean_record(network, found.n), self._clean_record(network, n)
        if not np.array_equal(every.hits[:n], few.hits):
            raise NotMeasured(f"{network.name} under {attack} on the images of {images_of}")
        hits = found.hits[:n]  # [n]
        return Share(int(np.count_nonzero(hits)), n, hits, few.images)

    def transfer(self, source: Network, target: Network, attack: str, eps: float) -> TransferRecord:
        """Transfer of images made with one network to another.

        Raises:
            NotMeasured: if there is no record.
        """
        found = self._transfer.get((source.id, target.id, attack, float(eps)))
        if found is None:
            raise NotMeasured(f"transfer of {attack} from {source.name} to {target.name}, eps = {eps:g}")
        return replace(found, source=source.name, target=target.name)

    def leaking(self, network: Network, attack: str, without: str, eps: float) -> LeakRecord:
        """Counts of leaked labels.

        Raises:
            NotMeasured: if there is no record.
        """
        found = self._leaking.get((network.id, attack, without, float(eps)))
        if found is None:
            raise NotMeasured(f"labels leaked by {network.name} under {attack}, eps = {eps:g}")
        return found


def _share(record: Record, top: int) -> Share | None:
    """Images classified correctly; None if top 5 was not measured. Hits are recorded for top 1 only."""
    if top == 1:
        return Share(record.top1, record.n, record.hits, record.images)
    return None if record.top5 is None else Share(record.top5, record.n)
