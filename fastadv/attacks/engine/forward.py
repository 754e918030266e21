"""Forward: a model's forward pass, as the cost of an attack needs it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from fastadv.utils.model_outputs import check_classes, split_logits


@dataclass(frozen=True, eq=False)
class Forward:
    """From images [N, C, ...] to logits [N, K], and to auxiliary logits where the cost has them.

    Args:
        model: the raw module, or another callable.
        user: who runs it, for messages.
        auxiliary: call the model's method ``forward_with_aux``.
    """

    model: Callable[..., Any]
    user: str
    auxiliary: bool = False

    def __call__(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """(what the model returns, auxiliary logits [N, K] each); the model may write to the images.

        Raises:
            ValueError: logits of one class, or no auxiliary logits.
        """
        if not self.auxiliary:
            output = self.model(images)
            check_classes(output, user=self.user)
            return output, []
        logits, auxiliary = split_logits(self.model.forward_with_aux(images))  # type: ignore[attr-defined]
        if not auxiliary:
            raise ValueError(f"{self.user}: aux_weight is positive, but forward_with_aux gave no auxiliary logits")
        return logits, auxiliary
