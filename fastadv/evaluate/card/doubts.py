"""Run the checks for masked gradients on a part of the images that were measured."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from fastadv.evaluate.card.card import worst_hits
from fastadv.evaluate.card.examples import Look
from fastadv.evaluate.checks import Finding, run_checks
from fastadv.evaluate.records import CLEAN, Record
from fastadv.evaluate.sweep import Subject

MOST = 100  # images, spread evenly over those that were measured


def checked_images(n: int) -> list[int]:
    """Return the indices of the images that the checks look at, of ``n``."""
    return [index * n // min(n, MOST) for index in range(min(n, MOST))]


def find_doubts(subject: Subject, records: Sequence[Record], look: Look, others: Sequence[Subject]) -> list[Finding]:
    """Look for signs that a network's gradient is masked.

    Args:
        subject: the network.
        records: of that network.
        look: returns the images with these indices, in the network's space.
        others: networks whose adversarial images are tried on it, if their input has the same space.
    """
    chosen = checked_images(records[0].n)
    images, labels = look(chosen)  # [m, C, H, W], [m]
    return run_checks(
        subject.model,
        images,
        labels,
        space=subject.space,
        accuracies={(r.attack, r.eps): torch.from_numpy(r.hits[chosen]) for r in records if r.attack != CLEAN},
        eps=_telling_size(records),
        seed=records[0].seed,
        sources=[other.model for other in others if other.space == subject.space],
    )


def _telling_size(records: Sequence[Record]) -> float:
    """The eps at which nearest to half of the images are fooled, since attacks differ most there."""
    sizes = sorted({record.eps for record in records if record.attack != CLEAN})
    return min(sizes, key=lambda eps: abs(float(worst_hits(records, eps).mean()) - 0.5))
