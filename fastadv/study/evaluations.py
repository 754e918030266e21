"""What a study measures of its networks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fastadv.study.networks import Network


@dataclass(frozen=True)
class Robustness:
    """Accuracy on clean images and under attacks.

    Args:
        networks: each attacked with itself.
        attacks: names of ``fastadv.attacks.names()``.
        eps: sizes of the perturbation in pixel values.
        limit: how many test images; None for all.
    """

    networks: tuple[Network, ...]
    attacks: tuple[str, ...]
    eps: tuple[float, ...]
    limit: int | None


@dataclass(frozen=True)
class Transfer:
    """Transfer of adversarial images from each network to each.

    Args:
        networks: by the names of their rows.
        attacks: as in :class:`Robustness`, like eps.
        limit: how many test images, drawn at random.
    """

    networks: tuple[Network, ...]
    attacks: tuple[str, ...]
    eps: tuple[float, ...]
    limit: int


@dataclass(frozen=True)
class Leaking:
    """Counts of leaked labels.

    Args:
        networks: as in :class:`Robustness`, like eps and limit.
        pairs: an attack that uses the true label and one that does not.
    """

    networks: tuple[Network, ...]
    pairs: tuple[tuple[str, str], ...]
    eps: tuple[float, ...]
    limit: int | None


Evaluations = Sequence[Robustness | Transfer | Leaking]
