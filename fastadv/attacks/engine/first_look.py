"""The look at the clean images with which an attack on undecided images begins."""

from __future__ import annotations

from torch import Tensor

from fastadv.attacks.engine.input_gradient import InputGradient
from fastadv.attacks.engine.undecided import Undecided
from fastadv.utils.input_hints import labels_refusal


def first_look(gradient: InputGradient, clean: Tensor, labels: Tensor) -> tuple[Undecided, Tensor]:
    """Decide the images that are misclassified without an attack; return the undecided ones, and all logits [N, K].

    Args:
        gradient: within its ``run``.
        clean: [N, C, ...], N > 0.
        labels: [N] int64.

    Raises:
        ValueError: if a label is none of the model's classes.
    """
    logits = gradient.logits(clean)  # [N, K]
    least, most = (int(end) for end in labels.aminmax())
    if least < 0 or most >= logits.shape[1]:
        wrong = most if most >= logits.shape[1] else least
        raise ValueError(labels_refusal(gradient.user, logits.shape[1], wrong))
    undecided = Undecided(clean, labels)
    undecided.look(undecided.left, clean, logits)
    return undecided, logits
