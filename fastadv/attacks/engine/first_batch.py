"""Checks the model's outputs and the gradient in the first batch of an attack."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch
from torch import Tensor

from fastadv.attacks.engine.zero_gradients import count_zero_gradients, warn_of_zero_gradients
from fastadv.utils.input_hints import check_labels_in_range
from fastadv.utils.stacklevel import user_stacklevel


@dataclass
class FirstBatch:
    """Warns once of outputs or gradients that make a model look robust. Every check waits for the device.

    Attributes:
        passed: true once the first step on a batch is complete.
        warned: true if there was a warning.
        steady: true once a pass was seen that moves no statistics, and draws nothing from the common generators.
    """

    passed: bool = False
    warned: bool = False
    steady: bool = False

    def check_labels(self, user: str, labels: Tensor, classes: int) -> None:
        """Refuse labels [N] that are out of range on a GPU; on a CPU the operators do so in every batch.

        Raises:
            ValueError: if there are any.
        """
        if labels.device.type != "cpu":
            check_labels_in_range(user, labels, classes)

    def check_logits(self, user: str, logits: Tensor) -> None:
        """Warn of logits [N, K] with which an attack runs but has little effect."""
        if not self.warned:
            self.warned = _warn_of_logits(user, logits)

    def check_gradient(self, user: str, grad: Tensor) -> None:
        """Warn if the gradient [N, C, ...] is zero or not finite for some images."""
        if not self.warned:
            self.warned = warn_of_zero_gradients(user, int(count_zero_gradients(grad)), len(grad))


def _warn_of_logits(user: str, logits: Tensor) -> bool:  # [N, K]
    probabilities = (logits >= 0).all() & ((logits.sum(dim=1, dtype=torch.float32) - 1).abs() < 1e-3).all()
    if not logits.isfinite().all():
        problem = "are not all finite, so there is no gradient to follow for some images"
    elif probabilities:
        problem = "look like probabilities, whose gradient vanishes: return the logits, without softmax"
    else:
        return False
    warnings.warn(
        f"{user}: the model's outputs [{len(logits)}, {logits.shape[1]}] {problem}", stacklevel=user_stacklevel()
    )
    return True
