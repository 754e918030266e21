"""How much work an evaluation is, in forward passes over its images: what a progress bar counts."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fastadv import attacks
from fastadv.evaluate.records import CLEAN
from fastadv.pixels import PixelSpace

GRADIENT = 2.5  # forward passes that take as long as a gradient of the images: 2.3 to 2.8 of them on a CPU


def generation_passes(
    model: Callable[..., Any], space: PixelSpace, attack: str, options: Mapping[str, Any], eps: Sequence[float]
) -> float:
    """Forward passes that take as long as to make adversarial images of these sizes.

    Args:
        model: that is attacked.
        space: of its input.
        attack: as records name it.
        options: of the attack, besides eps.
        eps: the sizes, in one pass over the images.
    """
    if attack == CLEAN:
        return 0.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they come when the attack is run
        made = attacks.create(attack.partition(":")[0], model, space=space, **options)
    gradients = [made.gradients(size) for size in eps]
    return GRADIENT * (max(gradients) if made.one_gradient else sum(gradients))
