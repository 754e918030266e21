"""Gradients that are zero or not finite."""

from __future__ import annotations

from fastadv.evaluate.checks.finding import Finding
from fastadv.evaluate.checks.sample import Sample
from fastadv.evaluate.checks.sign_test import more_than_negligible


def no_gradient(sample: Sample) -> Finding | None:
    """Speaks of images without a usable gradient of the cross-entropy. Costs a gradient an image.

    The gradient is the closed form of the attacks, which does not underflow: large logits are for ``logit_spread``.
    """
    m = len(sample)
    count = sample.one_step.without_gradient if sample.has_gradient else m
    if not more_than_negligible(count, m):
        return None
    return Finding(
        "no_gradient",
        f"{count} of {m} gradients are zero or not finite",
        "attacks that follow the gradient do nothing to these images: put a differentiable approximation in place of "
        "what rounds, detaches or saturates",
    )
