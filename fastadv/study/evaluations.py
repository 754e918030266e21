"""What a study measures of its networks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fastadv.study.networks import Network


@dataclass(frozen=True)
class Robustness:
    """Accuracy on clean images and under attacks.

    Args:
        networks: each is attacked with its own gradients.
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
        networks: sources and targets, named as in the tables.
        attacks: as in :class:`Robustness`.
        eps: as in :class:`Robustness`.
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
        networks: as in :class:`Robustness`.
        pairs: an attack that uses the true label, and one that does not.
        eps: as in :class:`Robustness`.
        limit: as in :class:`Robustness`.
    """

    networks: tuple[Network, ...]
    pairs: tuple[tuple[str, str], ...]
    eps: tuple[float, ...]
    limit: int | None


Evaluations = Sequence[Robustness | Transfer | Leaking]
