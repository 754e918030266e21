"""LogitDifference: the logit of one class minus that of another, whose zero is the boundary between the two."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fastadv.attacks.engine.cost import Cost, Derivatives


@dataclass(frozen=True, eq=False)
class LogitDifference(Cost):
    """The difference of two logits, differentiated as it is: the length of its gradient says how far the boundary is.

    In place of labels, an :class:`InputGradient` takes pairs [N, 2] int64 of classes: the true one, and the other one,
    whose logit counts as positive.
    """

    rule: str = "label"

    def derivatives(
        self,
        logits: Tensor,
        auxiliary: Sequence[Tensor],
        labels: Tensor | None,
        seed: int | Tensor = 0,
        offset: int = 0,
    ) -> Derivatives:
        """Return the pairs [N, 2], and 1 for the other class, -1 for the true one, and 0 for the rest: [N, K]."""
        assert labels is not None
        signs = torch.tensor([-1.0, 1.0], dtype=logits.dtype, device=logits.device).expand(len(logits), 2)
        derivatives = torch.zeros_like(logits).scatter_(1, labels, signs)  # [N, K]
        return Derivatives(labels, [derivatives], torch.zeros_like(labels[:, 0], dtype=torch.int32))


def logit_difference(logits: Tensor, pairs: Tensor) -> Tensor:
    """Return the difference [N], in float32 or float64, for logits [N, K] and pairs of classes [N, 2]."""
    wide = torch.promote_types(logits.dtype, torch.float32)
    true, other = logits.to(wide).gather(1, pairs).unbind(1)  # [N] each
    return other - true


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """Return by how much the true logit exceeds the largest other one: [n], for logits [n, K] and labels [n]."""
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    others = wide.scatter(1, labels[:, None], -torch.inf)  # [n, K]
    return wide.gather(1, labels[:, None])[:, 0] - others.amax(1)


def likeliest_others(logits: Tensor, labels: Tensor, most: int) -> Tensor:
    """Return the classes but the true one, the likeliest first, of equal ones the first: [N, T] int64, T <= most.

    A model may mask classes by logits of -inf, so the true one cannot be told by its value after it is set to that.

    Args:
        logits: [N, K].
        labels: [N] int64.
        most: number of classes; all but the true one if there are fewer.
    """
    ranked = logits.argsort(dim=1, descending=True, stable=True)  # [N, K]
    true_last = (ranked == labels[:, None]).to(torch.uint8).argsort(dim=1, stable=True)  # [N, K]
    return ranked.gather(1, true_last)[:, :-1][:, :most]
