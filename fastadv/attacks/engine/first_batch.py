"""What is looked at once, in the first batch of an attack: the model's outputs, and the gradient."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch
from torch import Tensor

from fastadv.attacks.engine.zero_gradients import warn_of_zero_gradients, without_gradient
from fastadv.utils.input_hints import labels_refusal
from fastadv.utils.stacklevel import user_stacklevel


@dataclass
class FirstBatch:
    """Warns once of a model whose outputs or gradients make it look robust. To look is to wait for the device.

    Attributes:
        passed: true once the first step on a batch is complete.
        warned: true if there was a warning.
    """

    passed: bool = False
    warned: bool = False

    def look_at_labels(self, user: str, labels: Tensor, classes: int) -> None:
        """Refuse labels [N] that the model has no class for. On a CPU the operators do, in every batch.

        Raises:
            ValueError: if there is one.
        """
        if labels.device.type != "cpu" and len(labels):
            least, most = (int(end) for end in labels.aminmax())
            if least < 0 or most >= classes:
                raise ValueError(labels_refusal(user, classes, most if most >= classes else least))

    def look_at_logits(self, user: str, logits: Tensor) -> None:
        """Warn of logits [N, K] with which an attack runs, and does little."""
        if not self.warned:
            self.warned = _warn_of_logits(user, logits)

    def look_at_gradient(self, user: str, grad: Tensor) -> None:
        """Warn of a gradient [N, C, ...] that is zero or not finite for some images."""
        if not self.warned:
            self.warned = warn_of_zero_gradients(user, int(without_gradient(grad)), len(grad))


def _warn_of_logits(user: str, logits: Tensor) -> bool:  # [N, K]
    probabilities = (logits >= 0).all() & ((logits.sum(dim=1, dtype=torch.float32) - 1).abs() < 1e-3).all()
    if not logits.isfinite().all():
        problem = "are not all finite, and where they are not there is no gradient to follow"
    elif probabilities:
        problem = "look like probabilities, whose gradient vanishes: return the logits, without softmax"
    else:
        return False
    warnings.warn(
        f"{user}: the model's outputs [{len(logits)}, {logits.shape[1]}] {problem}", stacklevel=user_stacklevel()
    )
    return True
