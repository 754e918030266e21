"""A gradient that does not say where the loss rises."""

from __future__ import annotations

from fastadv.evaluate.checks.finding import Finding
from fastadv.evaluate.checks.sample import Sample
from fastadv.evaluate.checks.sign_test import fewer_than
from fastadv.evaluate.checks.two_answers import other_answers

SCALES = (0.25, 1.0, 4.0)  # lengths of a step, in pixel values
MIDWAY = 0.75  # between a gradient that says nothing, 1/2, and one that is right for all images


def useless_gradient(sample: Sample) -> Finding | None:
    """Speaks if a step along the gradient's sign does not lower the margin more than one along random signs.

    It must do so for three of four images at one of three scales at least. Costs six answers an image, and a gradient
    that other checks share. It does not ask a model that draws, whose answers differ without a step.
    """
    if other_answers(sample).any():
        return None
    better = [_better(sample, scale) for scale in SCALES]
    if not all(fewer_than(count, len(sample), MIDWAY) for count in better):
        return None
    counts = ", ".join(f"{count} at {scale:g}" for scale, count in zip(SCALES, better, strict=True))
    return Finding(
        "useless_gradient",
        f"a step along the gradient lowers the margin more than random signs do for few of {len(sample)} images: "
        f"{counts}",
        "the gradient does not belong to what the model computes: look for layers with a backward pass of their own or "
        "with steps, and use square",
    )


def _better(sample: Sample, scale: float) -> int:
    """Number of images whose margin is lower after a step along the gradient than after one along random signs."""
    along, random = (
        sample.margins(sample.logits_at(sample.moved(towards, scale)))  # [m]
        for towards in (sample.one_step.images, sample.noise)
    )
    return int((along < random).sum())
