"""Accuracy that rises with eps."""

from __future__ import annotations

from itertools import pairwise

from fastadv.evaluate.checks.finding import Finding
from fastadv.evaluate.checks.sample import Sample, many_steps
from fastadv.evaluate.checks.sign_test import beats, only


def rises_with_eps(sample: Sample) -> Finding | None:
    """Speaks if an attack of many steps fools fewer images with a larger eps, whose ball holds the smaller one.

    Looks at what was measured, and costs nothing. One-step attacks may overshoot, and are left aside.
    """
    names = dict.fromkeys(one.name for one in sample.measured if many_steps(one.kind))
    by_size = [sorted((one for one in sample.measured if one.name == name), key=lambda one: one.eps) for name in names]
    pairs = [pair for sizes in by_size for pair in pairwise(sizes)]
    for small, large in pairs:
        if beats(small.fooled, large.fooled, comparisons=len(pairs)):
            return Finding(
                "rises_with_eps",
                f"{small.name} fools {only(small.fooled, large.fooled)} of {len(sample)} images at eps {small.eps:g} "
                f"and not at {large.eps:g}, and {only(large.fooled, small.fooled)} the other way round",
                "a larger ball holds the smaller one, so the attack fails, not the images: take more steps or smaller "
                "ones, and look for a masked gradient",
            )
    return None
