"""Checks that the claims of several studies consist of."""

from __future__ import annotations

from collections.abc import Sequence

from fastadv.evaluate.records import CLEAN
from fastadv.study.comparisons import gain
from fastadv.study.networks import Network
from fastadv.study.results import Results, Share
from fastadv.study.scales import Scale
from fastadv.study.verdicts import Check

POINT = 0.01


def at(eps: float) -> str:
    """How a check names a size, which is in pixel values."""
    return f"at eps = {eps:g}"


def over_eps(
    scale: Scale,
    results: Results,
    what: str,
    one: tuple[Network, str],
    other: tuple[Network, str],
    *,
    above: float | None = None,
    below: float | None = None,
    sizes: Sequence[float] | None = None,
) -> list[Check]:
    """At each eps, by how much the accuracy of one network under an attack exceeds that of another."""
    return [
        Check(f"{what} {at(eps)}", gain(results.accuracy(*one, eps), results.accuracy(*other, eps)), above, below)
        for eps in sizes or scale.eps
    ]


def clean_gain(
    results: Results,
    one: Network,
    other: Network,
    what: str,
    *,
    above: float | None = None,
    below: float | None = None,
    beside: str = CLEAN,
    eps: float = 0,
) -> Check:
    """By how much the clean accuracy of one network exceeds that of another, on the images of an attack ``beside``."""
    shares = (results.clean(network, beside=beside, eps=eps) for network in (one, other))
    return Check(f"clean, {what}", gain(*shares), above, below)


def below_clean(results: Results, network: Network, attack: str, eps: float) -> tuple[Share, Share]:
    """Accuracy under an attack, and on the same images when clean."""
    return results.accuracy(network, attack, eps), results.clean(network, beside=attack, eps=eps)
