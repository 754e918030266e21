"""Checks shared by the claims of several studies."""

from __future__ import annotations

from collections.abc import Sequence

from fastadv.evaluate.records import CLEAN
from fastadv.study.comparisons import gain
from fastadv.study.networks import Network
from fastadv.study.results import Results, Share
from fastadv.study.scales import Scale
from fastadv.study.verdicts import Check

POINT = 0.01


def at_eps(eps: float) -> str:
    """How a check names an eps, in pixel values."""
    return f"at eps = {eps:g}"


def accuracy_gains(
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
    """At each eps, how much more accurate the first network is under its attack than the second under its own."""
    return [
        Check(f"{what} {at_eps(eps)}", gain(results.accuracy(*one, eps), results.accuracy(*other, eps)), above, below)
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
    images_of: str = CLEAN,
    eps: float = 0,
) -> Check:
    """How much more accurate the first network is on clean images, those that ``images_of`` was measured on."""
    shares = (results.clean(network, images_of=images_of, eps=eps) for network in (one, other))
    return Check(f"clean, {what}", gain(*shares), above, below)


def attacked_and_clean(results: Results, network: Network, attack: str, eps: float) -> tuple[Share, Share]:
    """Accuracy under an attack, and on the same images without it."""
    return results.accuracy(network, attack, eps), results.clean(network, images_of=attack, eps=eps)
