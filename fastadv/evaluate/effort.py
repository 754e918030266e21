"""The cost of an evaluation in forward passes over its images, for progress bars."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fastadv import attacks
from fastadv.evaluate.attack_specs import attack_class, run_options
from fastadv.evaluate.records import CLEAN
from fastadv.pixels import PixelSpace

GRADIENT = 2.5  # cost of a gradient with respect to the images, in forward passes: 2.3 to 2.8 on a CPU


def generation_passes(
    model: Callable[..., Any], space: PixelSpace, attack: str, options: Mapping[str, Any], eps: Sequence[float]
) -> float:
    """Estimate the cost of making adversarial images of these sizes, in forward passes.

    Args:
        model: the model that is attacked.
        space: the PixelSpace of its input.
        attack: the attack's name, as in records.
        options: options of the attack besides eps.
        eps: sizes of the perturbation, made in one pass over the images.
    """
    gradients, forwards = passes_per_image(model, space, attack, options, eps)
    return GRADIENT * gradients + forwards


def passes_per_image(
    model: Callable[..., Any], space: PixelSpace, attack: str, options: Mapping[str, Any], eps: Sequence[float]
) -> tuple[int, int]:
    """How many gradients, and forward passes without one, making an image of each size takes.

    The arguments are those of :func:`generation_passes`.
    """
    if attack == CLEAN:
        return 0, 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the attack warns when it is run
        made = attacks.create(attack_class(attack), model, space=space, **run_options(options))
    passes = [(made.gradients(size), made.forwards(size)) for size in eps]
    if made.one_gradient:
        return max(passes)
    return sum(gradients for gradients, _ in passes), sum(forwards for _, forwards in passes)
