"""The look at the clean images with which an attack on undecided images begins."""

from __future__ import annotations

from torch import Tensor

from fastadv.attacks.engine.input_gradient import InputGradient
from fastadv.attacks.engine.undecided import Undecided
from fastadv.utils.input_hints import check_labels_in_range


def first_look(gradient: InputGradient, undecided: Undecided, *, whole: bool) -> Tensor:
    """Decide the images that are misclassified without an attack; return the logits [N, K] of clean images.

    Args:
        gradient: within its ``run``.
        undecided: the images.
        whole: run the model on all images, because the logits of one depend on the others; otherwise those of images
            that were decided before are zeros.

    Raises:
        ValueError: if the label of an image that is left is none of the model's classes.
    """
    place = undecided.left
    found = gradient.logits(undecided.clean if whole else undecided.clean[place])
    check_labels_in_range(gradient.user, undecided.labels[place], found.shape[1])
    if gradient.first_batch is not None and gradient.checks_outputs:
        gradient.first_batch.check_logits(gradient.user, found)
    if whole:
        logits = found
    else:
        logits = found.new_zeros(len(undecided.clean), found.shape[1])
        logits[place] = found
    undecided.look(place, undecided.clean[place], logits[place])
    return logits
