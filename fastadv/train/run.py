"""Run: everything that one process needs to train a network."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fastadv.data.loaders.protocol import Loader
from fastadv.distributed import ALONE, Processes
from fastadv.train.config import TrainConfig
from fastadv.train.phases import Timeline
from fastadv.train.protocols import Averages, Task, Watch

_GOES_ON = ("iteration", "stream")  # of a task's state, from phase to phase


@dataclass(frozen=True, kw_only=True, eq=False)
class Stage:
    """What a :class:`Run` has of its own in each phase.

    Args:
        config: the phase's configuration.
        task: forward pass and loss.
        train_loader: this process's share of the training set.
        test_loader: this process's share of the test set.
        sentinel: watches training on a one-step attack; None for other training.
    """

    config: TrainConfig
    task: Task
    train_loader: Loader
    test_loader: Loader
    sentinel: Watch | None = None


@dataclass(kw_only=True, eq=False)
class Run:
    """What a :class:`Trainer` works on. With several processes, each has its own.

    Args:
        config: the run's configuration, with its phases.
        run_dir: folder of checkpoints, log and TensorBoard scalars; only the main process uses it.
        model: the raw module, which is saved and tested; the task may hold it wrapped.
        task: forward pass and loss; of the current phase, like the loaders.
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
        stages: what differs between the phases; by default one, of the fields above.
        phase: number of the current phase; see :meth:`enter`.
        cost: of the iterations so far, in clean-epoch equivalents; see ``fastadv.train.cost``.
        sentinel: that of the current phase.
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
    stages: Sequence[Stage] = ()
    phase: int = 0
    cost: float = 0.0
    sentinel: Watch | None = None

    def __post_init__(self) -> None:
        own = Stage(config=self.config, task=self.task, train_loader=self.train_loader, test_loader=self.test_loader)
        self.stages = self.stages or [own]

    @property
    def device(self) -> torch.device:
        """Device of the model."""
        return next(self.model.parameters()).device

    @property
    def timeline(self) -> Timeline:
        """Phase and epoch of each iteration."""
        lengths = [len(stage.train_loader) // self.config.accumulate for stage in self.stages]
        return Timeline([stage.config.epochs for stage in self.stages], lengths)

    @property
    def phase_config(self) -> TrainConfig:
        """Configuration of the current phase."""
        return self.stages[self.phase].config

    def enter(self, phase: int) -> None:
        """Make another phase the current one. The task's random draws and its count go on.

        What a task keeps from minibatch to minibatch, as free training does its perturbations, starts anew; so do the
        sentinel's checks, because accuracies at another size or eps cannot be compared. After a recovery, the phase
        trains on the sentinel's attack from its start.
        """
        stage, state = self.stages[phase], self.task.state_dict()
        self.phase = phase
        self.task, self.train_loader, self.test_loader = stage.task, stage.train_loader, stage.test_loader
        fresh = self.task.state_dict()
        self.task.load_state_dict({**fresh, **{name: state[name] for name in _GOES_ON if name in fresh}})
        before, self.sentinel = self.sentinel, stage.sentinel
        if self.sentinel is not None:
            self.sentinel.start_anew(recovered=before is not None and before.recovered)

    @property
    def steps_per_epoch(self) -> int:
        """Iterations per epoch of the current phase; minibatches that do not fill a last iteration are left out."""
        return len(self.train_loader) // self.config.accumulate

    @property
    def total_steps(self) -> int:
        """Iterations of the whole run."""
        return self.timeline.total_steps

    def modules(self) -> list[nn.Module]:
        """The model, followed by the copy with averaged weights if there is one."""
        return [self.model] if self.averages is None else [self.model, self.averages.module]

    def buffers(self) -> Iterator[Tensor]:
        """The buffers of :meth:`modules`."""
        return (buffer for module in self.modules() for buffer in module.buffers())

    def autocast(self) -> AbstractContextManager[None]:
        """Autocast to bfloat16 if the configuration asks for it."""
        half = self.phase_config.precision == "bfloat16"
        return torch.autocast(self.device.type, dtype=torch.bfloat16) if half else nullcontext()

    def in_weight_layout(self, images: Tensor) -> Tensor:  # [m, C, H, W]
        """The images in the memory format of the weights."""
        return images.contiguous(memory_format=torch.channels_last) if self.config.in_channels_last else images
