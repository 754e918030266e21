"""A network that is constant between steps of its input."""

from __future__ import annotations

import torch
from torch import Tensor

from fastadv.evaluate.checks.finding import Finding
from fastadv.evaluate.checks.sample import Sample
from fastadv.evaluate.checks.sign_test import more_than_negligible

# In pixel values, from far below a grey level: 2**-6 is some 500 times what float32 resolves at 255.
SCALES = (2.0**-6, 2.0**-3, 1.0, 8.0)
RESOLVED = 8  # times the dtype's rounding of 255, for the smallest scale


def steps_in_input(sample: Sample) -> Finding | None:
    """Speaks of images whose logits do not change in a single bit when all pixels move a little, but do further off.

    Finite differences at four scales along random signs. Costs five answers an image, one of them shared.
    """
    finest = RESOLVED * 255 * torch.finfo(sample.images.dtype).eps
    scales = [scale for scale in SCALES if scale >= finest]
    unchanged = [_unchanged(sample, scale) for scale in scales]  # [m] bool each
    stuck = int((unchanged[0] & ~unchanged[-1]).sum()) if scales else 0
    if not more_than_negligible(stuck, len(sample)):
        return None
    moved = ", ".join(f"{int(same.sum())} by {scale:g}" for scale, same in zip(scales, unchanged, strict=True))
    return Finding(
        "steps_in_input",
        f"of {len(sample)} images so many keep exactly their logits when each pixel moves: {moved}",
        "the model rounds its input, and has no gradient of its own: attack it with the rounding's backward pass "
        "replaced by the identity (BPDA), and by square",
    )


def _unchanged(sample: Sample, scale: float) -> Tensor:
    """Which images [m] bool keep all logits when random signs of this size, in pixel values, are added."""
    logits = sample.logits_at(sample.moved(sample.noise, scale))  # [m, K]
    return (logits == sample.logits).all(dim=1).cpu()
