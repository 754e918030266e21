"""Test accuracy on clean images, which leaves the model as it was."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch import distributed as dist

from fastadv.distributed import ALONE, Processes
from fastadv.train.run import Run
from fastadv.train.tasks.correct_counts import is_correct
from fastadv.utils.model_outputs import check_classes, logits_of
from fastadv.utils.module_modes import isolated


@torch.no_grad()
def accuracy(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], processes: Processes = ALONE) -> float:
    """Share of the examples that ``model``, in eval mode, classifies correctly; every module keeps its mode.

    Args:
        model: images [m, C, H, W] -> logits [m, K]; the same on every process.
        batches: pairs of images and labels [m]. With several processes, each has its own batches, any number of them,
            and each example is on one process; they communicate once, at the end.
        processes: the processes whose counts are added up.

    Raises:
        OSError: if there are no examples, for instance because no file of the test set can be used.
        ValueError: if the logits are of a single class.
    """
    device = next(model.parameters()).device
    counts = torch.zeros(2, dtype=torch.int64, device=device)  # [2]: correct, all
    with isolated(model, bn="eval"):
        for images, labels in batches:
            # The model may write to its input, and a loader may yield the same tensors again.
            logits = logits_of(model(images.clone()))  # [m, K]
            check_classes(logits)
            counts[0] += is_correct(logits, labels).sum()
            counts[1] += len(labels)
    if not processes.alone:
        dist.all_reduce(counts)
    correct, examples = counts.tolist()
    if examples == 0:
        raise OSError("there is no test accuracy: no image of the test set could be used; the warnings say why")
    share: float = correct / examples
    return share


def validate(run: Run, module: nn.Module) -> float:
    """Test accuracy of one of ``run.modules()``, over all processes."""
    batches = ((run.in_weight_layout(images), labels) for images, labels in run.test_loader.epoch(0))
    with run.autocast():
        return accuracy(module, batches, run.processes)


def chance(labels: Tensor) -> float:
    """Accuracy on images with labels [N] up to which a network may be guessing.

    Always answering the most frequent class gives that class's share; two standard errors on top may be luck.
    """
    share = labels.bincount().max().item() / len(labels)
    return share + 2 * math.sqrt(share * (1 - share) / len(labels))
