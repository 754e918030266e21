"""Outputs that are probabilities already."""

from __future__ import annotations

from fastadv.evaluate.checks.finding import Finding
from fastadv.evaluate.checks.sample import Sample

ROUNDING = 1e-3  # of a sum of probabilities, also in half precision


def softmax_outputs(sample: Sample) -> Finding | None:
    """Speaks if all outputs lie in [0, 1] and each row sums to one, as logits do not. Costs an answer an image."""
    logits = sample.logits.double()  # [m, K]
    sums = logits.sum(dim=1)  # [m]
    if not (((logits >= 0) & (logits <= 1)).all() and ((sums - 1).abs() < ROUNDING).all()):
        return None
    evidence = f"the outputs of {len(sample)} of {len(sample)} images lie in [0, 1] and sum to one"
    return Finding(
        "softmax_outputs",
        evidence,
        "the model ends in softmax, whose gradient vanishes where it is confident: return the logits, without softmax",
    )
