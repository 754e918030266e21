"""Runs all checks on a sample of images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from fastadv.evaluate.accuracy import Counts
from fastadv.evaluate.checks.finding import Finding
from fastadv.evaluate.checks.logit_spread import logit_spread
from fastadv.evaluate.checks.no_gradient import no_gradient
from fastadv.evaluate.checks.noise_beats_gradient import noise_beats_gradient
from fastadv.evaluate.checks.one_step_beats_many import one_step_beats_many
from fastadv.evaluate.checks.rises_with_eps import rises_with_eps
from fastadv.evaluate.checks.sample import Sample
from fastadv.evaluate.checks.softmax_outputs import softmax_outputs
from fastadv.evaluate.checks.steps_in_input import steps_in_input
from fastadv.evaluate.checks.survives_eps_128 import survives_eps_128
from fastadv.evaluate.checks.transfer_beats_own import transfer_beats_own
from fastadv.evaluate.checks.two_answers import two_answers
from fastadv.evaluate.checks.useless_gradient import useless_gradient
from fastadv.pixels import PixelSpace
from fastadv.utils.module_modes import isolated

Check = Callable[[Sample], Finding | None]

OF_ANSWERS: tuple[Check, ...] = (softmax_outputs, logit_spread, two_answers, steps_in_input, no_gradient)
OF_ATTACKS: tuple[Check, ...] = (  # which need a gradient to follow
    *(useless_gradient, noise_beats_gradient, one_step_beats_many),
    *(rises_with_eps, survives_eps_128, transfer_beats_own),
)


def run_checks(
    model: Callable[..., Any],
    images: Tensor,
    labels: Tensor,
    *,
    space: PixelSpace,
    accuracies: Mapping[tuple[str, float], Tensor | Counts],
    eps: float,
    seed: int = 0,
    sources: Sequence[Callable[..., Any]] = (),
) -> list[Finding]:
    """Look for signs that the gradient of a model is masked, so that its accuracy under attack says little.

    The signs are those of Athalye et al. (2018, section 3.1), Carlini et al. (2019, section 5) and Pintor et al.
    (2022). Where images are counted, a check speaks only of what chance explains in at most 1 % of samples. No finding
    is no proof: the smaller the sample, the less is seen, and two attacks can only be compared where they differ.

    The model runs in evaluation mode, in batches of 50; its modes, buffers and gradients and torch's random numbers are
    the same afterwards. For each image, a model is asked for at most 21 gradients and 128 answers; what ``accuracies``
    has is not measured again, and Square asks only about images that are not fooled yet. Each source adds 10 gradients
    of its own and an answer.

    Args:
        model: a module or another callable, from images to logits [N, K].
        images: [m, C, H, W] in ``space``, some fifty to some hundred.
        labels: [m] int64, the true classes.
        space: how pixel values map to the model's input.
        accuracies: which of the images [m] bool are classified correctly, for each attack, as it is written on the
            command line, and eps that an evaluation has measured; attacks that no check needs are left aside.
        eps: size at which attacks are compared, in pixel values: best where some images are fooled and some are not.
        seed: of the attacks' random numbers, and of those that the model draws.
        sources: other networks with inputs in the same space, whose adversarial images are tried on the model.

    Returns:
        What the checks found, in the order in which causes come before their consequences.

    Raises:
        ValueError: if there are no images, images lie outside the space, labels or accuracies are not one for each
            image, eps is not in (0, 255], or the model does not return logits.
        TypeError: if the model is not callable, or images or labels have a wrong dtype.
    """
    sample = Sample(model, images, labels, space, eps, seed, accuracies, tuple(sources))
    with isolated(model, "eval"), torch.random.fork_rng(_devices(images)):
        torch.manual_seed(seed)
        checks = (*OF_ANSWERS, *OF_ATTACKS) if sample.has_gradient else OF_ANSWERS
        found = [check(sample) for check in checks]
    return [finding for finding in found if finding is not None]


def _devices(images: Tensor) -> list[int]:
    """The GPU whose random numbers the model may draw."""
    return [images.get_device()] if images.is_cuda else []
