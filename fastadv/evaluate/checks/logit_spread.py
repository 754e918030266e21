"""Logits between which float32 has no gradient left, or no difference."""

from __future__ import annotations

import math

import torch

from fastadv.evaluate.checks.finding import Finding
from fastadv.evaluate.checks.sample import Sample
from fastadv.evaluate.checks.sign_test import more_than_negligible

# Half of float32's smallest number is 2**-150: below it, exp(-gap) is zero, and with it every other probability.
SATURATED = 150 * math.log(2)
# Logits are rounded in every layer: of 24 bits, a difference in the last ten alone is hardly more than rounding.
IN_LAST_BITS = 2.0**-14


def logit_spread(sample: Sample) -> Finding | None:
    """Speaks of images whose softmax in float32 is exactly one and zeros, or whose logits hardly differ.

    Costs one answer an image, the same as the other checks'.
    """
    logits = sample.logits.double()  # [m, K]
    first, second = logits.topk(2, dim=1).values.unbind(dim=1)  # [m], [m]
    gap, spread = first - second, first - logits.amin(dim=1)
    saturated, flat = int((gap > SATURATED).sum()), int((spread <= IN_LAST_BITS * logits.abs().amax(dim=1)).sum())
    m = len(sample)
    if more_than_negligible(saturated, m):
        return Finding(
            "logit_spread",
            f"for {saturated} of {m} images the largest logit is over {SATURATED:.0f} above the next (median "
            f"{float(torch.median(gap)):.3g}): in float32, all other probabilities are zero",
            "softmax saturates, and attacks of other packages have no gradient: divide the logits by a constant, which "
            "changes no prediction",
        )
    if more_than_negligible(flat, m):
        return Finding(
            "logit_spread",
            f"for {flat} of {m} images all logits are equal up to the last ten bits of float32",
            "predictions and gradients are rounding errors: remove what flattens or shifts the logits, or use float64",
        )
    return None
