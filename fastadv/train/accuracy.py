"""Accuracy on clean images, without a trace on the model."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from fastadv.attacks.isolation import isolated


@torch.no_grad()
def accuracy(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> float:
    """Share of the examples that ``model``, in eval mode, classifies correctly; every module keeps its mode.

    Args:
        model: images [m, C, H, W] -> logits [m, K].
        batches: of (images, labels [m]).
    """
    with isolated(model, bn="eval"):
        correct = [model(images).argmax(dim=1) == labels for images, labels in batches]
    return torch.cat(correct).double().mean().item()
