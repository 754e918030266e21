"""APGD (Croce and Hein, 2020) on the cross-entropy, on the difference of logits ratio, and on its targeted form."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from typing_extensions import Unpack  # which torch requires

from fastadv.attacks.adaptive_pgd import AdaptivePGD
from fastadv.attacks.engine.logit_difference import likeliest_others
from fastadv.attacks.options import AdaptivePGDOptions
from fastadv.utils.validation import check_count


class APGDCE(AdaptivePGD):
    """APGD on the cross-entropy with the true class, "APGD-CE"."""

    name = "apgd_ce"
    rule = "label"

    def goals(self, labels: Tensor, logits: Tensor) -> Iterator[Tensor]:
        yield from [labels] * self.restarts


class APGDDLR(AdaptivePGD):
    """APGD on the difference of logits ratio (equation 6), "APGD-DLR".

    The loss is (max_{i != y} z_i - z_y) / (z_1st - z_3rd): its gradient does not vanish where that of the cross-entropy
    would, with large logits. It needs at least three classes.
    """

    name = "apgd_dlr"
    rule = "dlr"
    fewest_classes = 3

    def goals(self, labels: Tensor, logits: Tensor) -> Iterator[Tensor]:
        yield from [labels] * self.restarts


class APGDT(AdaptivePGD):
    """APGD on the targeted difference of logits ratio (equation 7), "APGD-T": one run for each target and restart.

    The loss is (z_t - z_y) / (z_1st - (z_3rd + z_4th) / 2). The targets are the likeliest other classes for the clean
    image, the likeliest first. It needs at least four classes.

    Args:
        target_classes: number of targets; all other classes if there are fewer.
    """

    name = "apgd_t"
    rule = "targeted_dlr"
    fewest_classes = 4

    def __init__(
        self, model: Callable[..., Any], *, target_classes: int = 9, **options: Unpack[AdaptivePGDOptions]
    ) -> None:
        super().__init__(model, **options)
        check_count("target_classes", target_classes, least=1)
        self.target_classes = target_classes

    @property
    def runs(self) -> int:
        return self.target_classes * self.restarts

    def goals(self, labels: Tensor, logits: Tensor) -> Iterator[Tensor]:
        for target in likeliest_others(logits, labels, self.target_classes).unbind(1):
            yield from [torch.stack([labels, target], dim=1)] * self.restarts

    def options(self) -> dict[str, Any]:
        return {**super().options(), "target_classes": self.target_classes}
