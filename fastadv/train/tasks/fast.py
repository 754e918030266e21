"""fast_task: "Fast is better than free" as a setting of Algorithm 1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from fastadv.attacks.engine.step_sizes import checked_single_eps
from fastadv.pixels import PixelSpace
from fastadv.train.tasks.adversarial import ALL, AdversarialTask
from fastadv.train.tasks.base import checked_options
from fastadv.train.tasks.sources import Source
from fastadv.utils.validation import check_one_of

_STARTS = {"ball": "pgd", "noise": "n_fgsm"}
_FIXED = ("steps", "alpha", "random_start", "norm", "targets")


def fast_task(
    model: nn.Module,
    *,
    eps: float,
    space: PixelSpace,
    alpha: float | None = None,
    start: str = "ball",
    start_after: int = 0,
    eps_warmup: int = 0,
    label_smoothing: float = 0.0,
    aux_weight: float = 0.4,
    seed: int | None = None,
    attack_options: dict[str, Any] | None = None,
    sources: Sequence[Source] = (),
) -> AdversarialTask:
    """One step from a random start, for all examples: "Fast is better than free" (Wong, Rice and Kolter, 2020).

    Returns an :class:`AdversarialTask` whose attack is ``pgd`` with a single step and whose k is the whole minibatch:
    each example starts at a uniform random point of its eps ball, takes one step of length alpha along the sign of the
    gradient, and is clipped to the ball and the pixel range. The authors generate with the network in training mode,
    which updates BatchNorm's running statistics a second time; here, generation uses the running statistics without
    updating them, or, with ``attack_options={"bn": "batch"}``, those of the minibatch.

    With ``start="noise"`` the attack is ``n_fgsm`` (de Jorge et al., 2022): a step of length eps from noise of twice
    that size, not clipped to the ball. Its authors report that it keeps its robustness to iterative attacks at larger
    eps, where a start in the ball can lose it.

    Args:
        model: as for :class:`AdversarialTask`.
        eps: radius of the ball in pixel values; one number for all examples.
        space: how the images were normalised.
        alpha: length of the step in pixel values; None takes the authors' values, 1.25 eps, or eps with
            ``start="noise"``.
        start: ``"ball"`` or ``"noise"``.
        start_after: as for :class:`AdversarialTask`, like the next four.
        eps_warmup: iterations in which eps and alpha grow linearly from 0.
        label_smoothing: label smoothing of the loss.
        aux_weight: weight of the loss at auxiliary logits.
        seed: fixes the random starts.
        attack_options: further options of the attack as a dictionary, such as ``{"bn": "batch"}``, or
            ``{"noise": 1}`` with ``start="noise"``.
        sources: as for :class:`AdversarialTask`.

    Raises:
        ValueError: if eps or alpha is not positive and finite, an attack option would make it another method, or
            :class:`AdversarialTask` raises it.
        TypeError: if eps is not a number, or :class:`AdversarialTask` raises it.

    Warns:
        UserWarning: if eps or alpha seems to be on a [0, 1] scale instead of in pixel values.
    """
    check_one_of("start", start, list(_STARTS))
    given = checked_options(attack_options, _FIXED, "fast training is one step of alpha, from random")
    task = AdversarialTask(
        model,
        attack=_STARTS[start],
        k=ALL,
        lambda_=1.0,
        eps=eps,
        space=space,
        start_after=start_after,
        eps_warmup=eps_warmup,
        label_smoothing=label_smoothing,
        aux_weight=aux_weight,
        seed=seed,
        attack_options={"alpha": alpha, **({"steps": 1} if start == "ball" else {}), **given},
        sources=sources,
    )
    number = checked_single_eps(task.attack.eps)
    if alpha is None and start == "ball":  # set here because, as an attack option, it would repeat a warning about eps
        task.attack.alpha = 1.25 * number  # type: ignore[attr-defined]
    return task
