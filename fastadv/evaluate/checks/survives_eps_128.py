"""Accuracy that is left where every image can be made the same."""

from __future__ import annotations

import torch

from fastadv.evaluate.checks.finding import Finding
from fastadv.evaluate.checks.sample import STEPS, Sample, many_steps
from fastadv.evaluate.checks.sign_test import beats, only

EPS = 128.0  # holds middle grey, 127.5, around every image


def survives_eps_128(sample: Sample) -> Finding | None:
    """Speaks if at eps 128 plain grey fools more images than the gradient does.

    A grey image has one class, so only images of that class can stay correct under an attack that is worth its name.
    Costs PGD, 10 gradients and an answer an image, unless an attack of many steps was measured at 128 or more.
    """
    given = [one.fooled for one in sample.measured if one.eps >= EPS and many_steps(one.kind)]
    fooled = torch.stack(given).any(dim=0) if given else sample.fooled_under("pgd", eps=EPS, steps=STEPS)  # [m]
    grey = sample.space.from_pixels(torch.full_like(sample.images[:1], 127.5), sample.images.dtype)  # [1, C, H, W]
    by_grey = sample.wrong | (sample.logits_at(grey).argmax(dim=1) != sample.labels).cpu()  # [m]
    if not beats(by_grey, fooled):
        return None
    return Finding(
        "survives_eps_128",
        f"at eps {EPS:g}, {int((~fooled).sum())} of {len(sample)} images stay correct under the gradient; plain grey, "
        f"which lies in every ball, fools {only(by_grey, fooled)} of them",
        "the attack fails, not the images: look for a masked gradient before you trust the accuracy at any eps",
    )
