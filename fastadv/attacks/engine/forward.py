"""Forward: a model's forward pass to logits, and to auxiliary logits if the cost uses them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from fastadv.utils.model_outputs import check_classes, logits_of, split_logits


@dataclass(frozen=True, eq=False)
class Forward:
    """Maps images [N, C, ...] to logits [N, K], and to auxiliary logits if the cost uses them.

    Args:
        model: the raw module, or another callable.
        user: the attack's name, for messages.
        auxiliary: call the model's method ``forward_with_aux``.
    """

    model: Callable[..., Any]
    user: str
    auxiliary: bool = False

    def __call__(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return (logits [N, K], auxiliary logits [N, K] each); the model may write to the images.

        An output that has no logits is returned as it is.

        Raises:
            ValueError: if there is only one class, or there are no auxiliary logits.
        """
        if not self.auxiliary:
            output = logits_of(self.model(images))
            check_classes(output, user=self.user)
            return output, []
        logits, auxiliary = split_logits(self.model.forward_with_aux(images))  # type: ignore[attr-defined]
        if not auxiliary:
            raise ValueError(f"{self.user}: aux_weight is positive, but forward_with_aux returned no auxiliary logits")
        return logits, auxiliary
