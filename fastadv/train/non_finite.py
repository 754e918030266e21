"""Stop training at a loss or weights that are not finite, on all processes alike."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from fastadv.distributed import gathered
from fastadv.train.run import Run


class NonFiniteLoss(ArithmeticError):
    """A loss or the weights are not finite.

    A loss that is not finite never changes the weights: they, their averages, the optimiser and BatchNorm's running
    statistics are as before its iteration.

    Args:
        what: what is not finite.
        iteration: counts from 1.
        indices: indices of the minibatch's examples in the training set.
        checkpoint: the last good checkpoint, if there is one.
    """

    def __init__(self, what: str, *, iteration: int, indices: list[int], checkpoint: Path | None) -> None:
        super().__init__(
            f"{what} at iteration {iteration}, on the training examples {indices}; "
            f"the last good checkpoint is {checkpoint or 'none'}. What often helps: a lower optimizer.lr, or a "
            f"schedule.warmup; eps is in pixel values of [0, 255]"
        )
        self.iteration = iteration
        self.indices = indices
        self.checkpoint = checkpoint


def refuse_losses(
    run: Run, losses: Sequence[tuple[Tensor, Tensor]], *, iteration: int, last_checkpoint: Path | None
) -> None:
    """Raise on every process if one has a loss that is not finite.

    Args:
        run: the run, on this process.
        losses: for each minibatch of this process the loss, a scalar, and the data-set indices [m].
        iteration: counts from 1.
        last_checkpoint: for the message.

    Raises:
        NonFiniteLoss: names the first such loss, by rank.
    """
    found = [(f"the loss is {loss.item()}", indices.tolist()) for loss, indices in losses if not loss.isfinite()]
    _raise_first(run, found, iteration, last_checkpoint)


def check_weights(run: Run, *, iteration: int, last_checkpoint: Path | None) -> None:
    """Raise on every process if weights or buffers of one are not finite; see :func:`refuse_losses`."""
    tensors = [tensor for tensor in run.model.state_dict().values() if tensor.is_floating_point()]
    finite = bool(torch.stack([tensor.isfinite().all() for tensor in tensors]).all())  # one wait for a GPU
    found = [] if finite else [("the weights are not finite", run.train_loader.indices.tolist())]
    _raise_first(run, found, iteration, last_checkpoint)


def _raise_first(run: Run, found: list[tuple[str, list[int]]], iteration: int, last_checkpoint: Path | None) -> None:
    """Raise for the first finding of all processes: what is not finite, and the examples that it came from."""
    for rank, of_process in enumerate(gathered(run.processes, found)):
        for what, indices in of_process:
            where = "" if run.processes.alone else f"process {rank}: "
            raise NonFiniteLoss(where + what, iteration=iteration, indices=indices, checkpoint=last_checkpoint)
