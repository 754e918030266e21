"""Count correctly classified examples, clean and adversarial, and turn the counts into accuracies."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from fastadv.train.tasks.soft_labels import are_soft


class Accuracy(NamedTuple):
    """Accuracy on the clean and on the adversarial examples of a minibatch; None if there are no such examples."""

    clean: float | None
    adversarial: float | None


class CorrectCounts(NamedTuple):
    """How many examples of a minibatch are classified correctly, and how many there are: each (clean, adversarial)."""

    correct: Tensor  # [2] int64, on the model's device
    examples: tuple[int, int]


def is_correct(logits: Tensor, labels: Tensor) -> Tensor:  # [m, K], [m] or [m, K] -> [m] bool
    """True where the largest logit is that of the label; for soft labels, that of the most probable class."""
    if are_soft(labels):
        labels = labels.argmax(dim=1)  # [m]
    return logits.argmax(dim=1) == labels


def count_correct(logits: Tensor, labels: Tensor, k: int) -> CorrectCounts:
    """Count the correct examples of a minibatch without waiting for its device.

    Args:
        logits: [m, K].
        labels: [m], or soft labels [m, K].
        k: the first k examples are adversarial, the others clean.
    """
    correct = is_correct(logits, labels)  # [m]
    return CorrectCounts(torch.stack([correct[k:].sum(), correct[:k].sum()]), (len(labels) - k, k))


def accuracy_of(correct: Iterable[float], examples: Iterable[int]) -> Accuracy:
    """Divide correct by all examples, both (clean, adversarial)."""
    return Accuracy(*(hits / count if count else None for hits, count in zip(correct, examples, strict=True)))
