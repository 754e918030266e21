"""Run: everything that one process needs to train a network."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fastadv.data.loaders.protocol import Loader
from fastadv.distributed import ALONE, Processes
from fastadv.train.config import TrainConfig
from fastadv.train.protocols import Averages, Task, Watch


@dataclass(kw_only=True, eq=False)
class Run:
    """What a :class:`Trainer` works on. With several processes, each has its own.

    Args:
        config: the run's configuration.
        run_dir: folder of checkpoints, log and TensorBoard scalars; only the main process uses it.
        model: the raw module, which is saved and tested; the task may hold it wrapped.
        task: forward pass and loss.
        optimizer: updates the model's parameters.
        schedule: learning-rate schedule, stepped after each iteration.
        train_loader: this process's share of the training set.
        test_loader: this process's share of the test set, on which accuracy is measured after each epoch.
        classes: class names, in the order of the model's logits.
        in_channels: channels of the model's input.
        training_set: identifies the training set; see :func:`fastadv.data.identity_of`.
        chance: test accuracy up to which a network may be guessing: the share of the most frequent class plus two
            standard errors.
        processes: the processes that train together.
        local_backward: context for the forward and backward passes of all minibatches of an iteration but the last,
            whose gradients need not be exchanged: ``DistributedDataParallel.no_sync``.
        averages: averages the model's weights over the iterations; None for no averaging.
        sentinel: watches training on a one-step attack; None for other training.
    """

    config: TrainConfig
    run_dir: Path
    model: nn.Module
    task: Task
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    train_loader: Loader
    test_loader: Loader
    classes: tuple[str, ...]
    in_channels: int
    training_set: Mapping[str, Any]
    chance: float = 0.0
    processes: Processes = ALONE
    local_backward: Callable[[], AbstractContextManager[None]] = nullcontext
    averages: Averages | None = None
    sentinel: Watch | None = None

    @property
    def device(self) -> torch.device:
        """Device of the model."""
        return next(self.model.parameters()).device

    @property
    def steps_per_epoch(self) -> int:
        """Iterations per epoch; minibatches that do not fill a last iteration are left out."""
        return len(self.train_loader) // self.config.accumulate

    @property
    def total_steps(self) -> int:
        """Iterations of the whole run."""
        return self.config.epochs * self.steps_per_epoch

    def modules(self) -> list[nn.Module]:
        """The model, followed by the copy with averaged weights if there is one."""
        return [self.model] if self.averages is None else [self.model, self.averages.module]

    def buffers(self) -> Iterator[Tensor]:
        """The buffers of :meth:`modules`."""
        return (buffer for module in self.modules() for buffer in module.buffers())

    def autocast(self) -> AbstractContextManager[None]:
        """Autocast to bfloat16 if the configuration asks for it."""
        half = self.config.precision == "bfloat16"
        return torch.autocast(self.device.type, dtype=torch.bfloat16) if half else nullcontext()

    def in_weight_layout(self, images: Tensor) -> Tensor:  # [m, C, H, W]
        """The images in the memory format of the weights."""
        return images.contiguous(memory_format=torch.channels_last) if self.config.in_channels_last else images
