"""Which images a model classifies correctly, at top 1 and top 5."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fastadv.utils.input_hints import explain_model_errors, labels_shape_hint
from fastadv.utils.model_outputs import check_classes, logits_hint, logits_of
from fastadv.utils.text import counted

FEWEST_CLASSES_FOR_TOP5 = 6  # with five or fewer, every class is among the five likeliest


@dataclass(frozen=True, eq=False)
class Hits:
    """Which of m images were classified correctly; ``top5`` is None with fewer than six classes."""

    top1: Tensor  # [m] bool
    top5: Tensor | None  # [m] bool

    def at(self, top: int) -> Tensor:  # [m] bool
        """Return the hits at ``top`` 1 or 5."""
        if top == 1:
            return self.top1
        if self.top5 is None:
            raise ValueError(f"top 5 needs at least {FEWEST_CLASSES_FOR_TOP5} classes")
        return self.top5


def hits(model: nn.Module, images: Tensor, labels: Tensor) -> Hits:
    """Find for which images [m, C, H, W] the label [m] is the likeliest class, and among the five likeliest.

    Ties go to the lower index. A row with a NaN counts as wrong; sorting alone would rank NaN first.

    Raises:
        ValueError: if labels are not class indices, logits do not fit them, or the model rejects the images.
    """
    _check_labels(images, labels)
    with torch.no_grad(), explain_model_errors(model, images):
        logits = logits_of(
            model(images.clone())
        )  # [m, K]; cloned, as the model may write to its input, which is used again
    _check_logits(logits, labels)
    likeliest = logits.argsort(dim=1, descending=True, stable=True)[:, :5]  # [m, 5 or K]
    found = (likeliest == labels[:, None]) & ~logits.isnan().any(dim=1, keepdim=True)  # [m, 5 or K]
    return Hits(found[:, 0], found.any(dim=1) if logits.shape[1] >= FEWEST_CLASSES_FOR_TOP5 else None)


def _check_labels(images: Tensor, labels: Tensor) -> None:
    if labels.dim() != 1 or labels.is_floating_point() or labels.dtype == torch.bool:
        got = f"{labels.dtype} {list(labels.shape)}{labels_shape_hint(images, labels)}"
        raise ValueError(f"labels must be class indices, one per image, [{len(images)}], got {got}")


def _check_logits(logits: Any, labels: Tensor) -> None:
    check_classes(logits)
    if not isinstance(logits, Tensor) or logits.dim() != 2 or len(logits) != len(labels):
        got = list(logits.shape) if isinstance(logits, Tensor) else f"{type(logits).__name__}{logits_hint(logits)}"
        raise ValueError(
            f"the model must give logits [{len(labels)}, K] for {counted(len(labels), 'image')}, got {got}"
        )
    if len(labels) and not 0 <= labels.min() <= labels.max() < logits.shape[1]:
        raise ValueError(
            f"labels must lie in 0..{logits.shape[1] - 1}, since the model has {counted(logits.shape[1], 'class')}; "
            f"got {labels.min()}..{labels.max()}"
        )
