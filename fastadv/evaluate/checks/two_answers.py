"""A network that draws random numbers."""

from __future__ import annotations

from torch import Tensor

from fastadv.evaluate.checks.finding import Finding
from fastadv.evaluate.checks.sample import Sample

ORDER_OF_SUMS = 1e-3  # of a row's spread: a GPU may add up in another order the second time


def two_answers(sample: Sample) -> Finding | None:
    """Speaks if the same images get other logits the second time. Costs two answers an image, which are shared."""
    other = int(other_answers(sample).sum())
    if not other:
        return None
    classes = int((sample.logits.argmax(dim=1) != sample.logits_again.argmax(dim=1)).sum())
    return Finding(
        "two_answers",
        f"{other} of {len(sample)} images get other logits the second time, {classes} of them another class",
        "the model draws, and one gradient follows one draw: turn dropout and random transforms off, or average with "
        "eot=10",
    )


def other_answers(sample: Sample) -> Tensor:  # [m] bool
    """Which images get other logits the second time."""
    one, two = sample.logits.double(), sample.logits_again.double()  # [m, K]
    spread = one.amax(dim=1) - one.amin(dim=1)  # [m]
    return (one - two).abs().amax(dim=1) > ORDER_OF_SUMS * spread
