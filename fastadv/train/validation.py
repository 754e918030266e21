"""Accuracy on clean images, without a trace on the model."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch import distributed as dist

from fastadv.distributed import ALONE, Processes
from fastadv.utils.model_outputs import check_classes
from fastadv.utils.module_modes import isolated


@torch.no_grad()
def accuracy(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], processes: Processes = ALONE) -> float:
    """Share of the examples that ``model``, in eval mode, classifies correctly; every module keeps its mode.

    Args:
        model: images [m, C, H, W] -> logits [m, K], the same on every process.
        batches: of (images, labels [m]); of several processes, each has its own, of any number, and each example is on
            one of them. They meet once, at the end.
        processes: that count together.

    Raises:
        OSError: there is no example, as where no file of the test set can be used.
        ValueError: logits of one class.
    """
    device = next(model.parameters()).device
    counts = torch.zeros(2, dtype=torch.int64, device=device)  # [2] correct, all
    with isolated(model, bn="eval"):
        for images, labels in batches:
            # The model may write to what it is given, and a loader may hand out the same tensors again.
            logits = model(images.clone())  # [m, K]
            check_classes(logits)
            counts[0] += (logits.argmax(dim=1) == labels).sum()
            counts[1] += len(labels)
    if not processes.alone:
        dist.all_reduce(counts)
    correct, examples = counts.tolist()
    if examples == 0:
        raise OSError("there is no test accuracy: no image of the test set could be used; the warnings say why")
    share: float = correct / examples
    return share


def chance(labels: Tensor) -> float:
    """The accuracy on images of these labels [N] up to which a network may be guessing.

    Who always answers the commonest class gets its share right; two standard errors more are luck.
    """
    share = labels.bincount().max().item() / len(labels)
    return share + 2 * math.sqrt(share * (1 - share) / len(labels))
