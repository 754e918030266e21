"""Restarts: an attack with random starts runs several times, and each image keeps the worst that it met."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastadv.attacks.engine.forward import Forward
from fastadv.attacks.engine.input_gradient import InputGradient
from fastadv.attacks.engine.step_sizes import Size
from fastadv.attacks.engine.undecided import Undecided
from fastadv.utils.input_hints import check_labels_in_range
from fastadv.utils.module_modes import raw_module
from fastadv.utils.rng import nth_seed


def run_restarts_(attack: Any, adv: Tensor, labels: Tensor, size: Size, seed: int | Tensor, offset: int) -> None:
    """Run an attack on adv [N, C, ...] in place, up to ``attack.restarts`` times.

    The first run is the one that there would be without restarts. Only images that are still classified correctly, or
    do not have their targets yet, go into the next. The others leave the batch, unless an example's gradient depends on
    the others, the shape of the batch is fixed, or random classes are drawn by an image's place in it.

    Args:
        attack: a :class:`fastadv.attacks.GradientAttack`.
        adv: clean images.
        labels: [N] int64, the true classes or, if the attack is targeted, the targets.
        size, seed, offset: of the first run.
    """
    clean = adv.clone()  # [N, C, ...]
    logits_of = _Logits(attack)
    undecided = Undecided(clean, labels, targeted=attack.targeted)
    leave = attack.examples_leave and attack.rule != "random"
    counted = None
    for number in range(attack.restarts):
        place = undecided.left if leave else torch.arange(len(clean), device=clean.device)  # [n]
        of_run = nth_seed(seed, number)
        if len(place) == len(clean):
            made = clean.clone()
            attack.run_once_(made, labels, size, of_run, offset)
        else:
            made = clean[place]  # [n, C, ...]
            start = clean.clone()  # the draws depend on the place in the whole batch
            attack.start_(start, clean, size.eps, of_run, offset)
            attack.run_once_(made, labels[place], size.rows(place), of_run, offset, start[place])
        logits = logits_of(made)  # [n, K]
        attack.image_queries += attack.eot * len(made)
        if number == 0:
            check_labels_in_range(attack.name, labels, logits.shape[1])
            undecided.adv.copy_(made)
            counted = attack.without_gradient
        undecided.look(place, made, logits)
        undecided.keep_best(place, made, attack.height(logits, labels[place]))
        if not len(undecided.left):
            break
    attack.without_gradient = counted
    adv.copy_(undecided.adv)


class _Logits:
    """The logits of the network that is attacked, as it is: not folded, and without auxiliary ones."""

    def __init__(self, attack: Any) -> None:
        forward = Forward(raw_module(attack.model), attack.name)
        self._gradient = InputGradient(forward, attack.cost(attack.bn), attack.bn, samples=attack.eot)

    def __call__(self, images: Tensor) -> Tensor:  # [n, C, ...] -> [n, K]
        return self._gradient.run(images, lambda: self._gradient.logits(images))
