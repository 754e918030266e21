"""Attacks that do not use the gradient, and fool more images than those that do."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from fastadv import attacks
from fastadv.evaluate.checks.finding import Finding
from fastadv.evaluate.checks.sample import Sample
from fastadv.evaluate.checks.sign_test import beats, only
from fastadv.utils.rng import nth_seed

DRAWS = 10  # of noise: as many answers as PGD has steps
QUERIES = 100  # of Square


def noise_beats_gradient(sample: Sample) -> Finding | None:
    """Speaks if noise or Square fools more images than many steps along the gradient, at the same eps.

    Costs 10 answers an image for noise; for Square, if it was not measured, up to 101 for those that are not fooled;
    and PGD, 10 gradients and an answer, unless an attack of many steps was measured.
    """
    blind = list(_blind(sample))
    for name, fooled in blind:
        if beats(fooled, sample.by_gradient, comparisons=len(blind)):
            return Finding(
                "noise_beats_gradient",
                f"at eps {sample.eps:g}, {name} fools {only(fooled, sample.by_gradient)} of {len(sample)} images that "
                f"the gradient does not, which fools {only(sample.by_gradient, fooled)} that {name} does not",
                "the gradient leads nowhere: do not trust the accuracy under attacks that follow it; use square with "
                "5,000 queries, and look for what masks the gradient",
            )
    return None


def _blind(sample: Sample) -> Iterator[tuple[str, Tensor]]:
    """Yield attacks that do not use the gradient, with the images [m] bool that they fool."""
    noise = [
        sample.fooled_under("random_sign", eps=sample.eps, seed=nth_seed(sample.seed, draw)) for draw in range(DRAWS)
    ]
    yield f"the best of {DRAWS} draws of noise", torch.stack(noise).any(dim=0)
    given = sample.measured_at_eps(attacks.Square)
    if not given:
        yield f"square with {QUERIES} queries", sample.fooled_under("square", eps=sample.eps, queries=QUERIES)
    for one in given:
        yield one.name, one.fooled
