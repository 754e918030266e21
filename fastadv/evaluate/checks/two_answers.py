"""A network that draws random numbers."""

from __future__ import annotations

from fastadv.evaluate.checks.finding import Finding
from fastadv.evaluate.checks.sample import Sample

ORDER_OF_SUMS = 1e-3  # of a row's spread: a GPU may add up in another order the second time


def two_answers(sample: Sample) -> Finding | None:
    """Speaks if the same images get other logits the second time. Costs two answers an image, one of them shared."""
    one = sample.logits.double()  # [m, K]
    two = sample.logits_at(sample.images).double()  # [m, K]
    spread = one.amax(dim=1) - one.amin(dim=1)  # [m]
    other = int(((one - two).abs().amax(dim=1) > ORDER_OF_SUMS * spread).sum())
    if not other:
        return None
    classes = int((one.argmax(dim=1) != two.argmax(dim=1)).sum())
    return Finding(
        "two_answers",
        f"{other} of {len(sample)} images get other logits the second time, {classes} of them another class",
        "the model draws, and one gradient follows one draw: turn dropout and random transforms off, or average with "
        "eot=10",
    )
