"""Trainer: the loop. It knows no attack: a task owns the forward pass and the loss."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fastadv.train import checkpoint
from fastadv.train.accuracy import accuracy
from fastadv.train.config import TrainConfig
from fastadv.train.interfaces import Loader, Task
from fastadv.train.means import RunningMeans
from fastadv.train.monitor import EpochRecord, Rate, Record, StepRecord, monitoring


class NonFiniteLoss(ArithmeticError):
    """Training met a loss or weights that are not finite.

    Args:
        what: what was not finite.
        iteration: counted from 1.
        indices: of the minibatch's examples in the training set.
        checkpoint: the last good one.
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


class Trainer:
    """Trains a model and keeps its run's folder: checkpoints, log and TensorBoard scalars.

    The position in the run is ``step`` alone: epoch and batch follow from it, and loaders are functions of these.

    Args:
        config: the run's.
        run_dir: its folder.
        model: the raw module, which is saved and tested; the task may hold it wrapped.
        task: forward pass and loss.
        optimizer: of the model's parameters.
        schedule: stepped after each iteration.
        train_loader: what to train on.
        test_loader: what to measure accuracy on at the end of each epoch.
        inputs: the model's number of classes and of input channels.
    """

    def __init__(
        self,
        config: TrainConfig,
        run_dir: Path,
        *,
        model: nn.Module,
        task: Task,
        optimizer: torch.optim.Optimizer,
        schedule: torch.optim.lr_scheduler.LRScheduler,
        train_loader: Loader,
        test_loader: Loader,
        inputs: tuple[int, int],
    ) -> None:
        self.config = config
        self.run_dir = run_dir
        self.model = model
        self.task = task
        self.optimizer = optimizer
        self.schedule = schedule
        self.train_loader = train_loader
        self.test_loader = test_loader
        self.inputs = inputs
        self.step = 0
        self.last_checkpoint: Path | None = None
        self._loss = self._lr = math.nan
        self.stopped_because: str | None = None
        self._stopping = False
        self._rate = Rate()
        self._means = RunningMeans(self.device)

    @property
    def device(self) -> torch.device:
        """Where the model lies."""
        return next(self.model.parameters()).device

    @property
    def total_steps(self) -> int:
        """Iterations of the whole run."""
        return self.config.epochs * len(self.train_loader)

    @property
    def finished(self) -> bool:
        """Whether every epoch is done."""
        return self.step >= self.total_steps

    # --- the loop ----------------------------------------------------------------------------------------------------

    def fit(self) -> None:
        """Train from where the run stands to its last epoch, or until :meth:`request_stop`; leaves a checkpoint.

        Raises:
            NonFiniteLoss: the weights are those before the iteration that failed.
            CheckpointError: a checkpoint could not be written.
        """
        position = {"step": self.step, "total_steps": self.total_steps, "epochs": self.config.epochs}
        with monitoring(self.run_dir, **position) as self._monitors:
            if self.last_checkpoint is None:
                self.save()
            while not self.finished and not self._stopping:
                self._train_epoch()

    def _train_epoch(self) -> None:
        """The rest of the current epoch, or as much of it as there is before a stop."""
        epoch, start = divmod(self.step, len(self.train_loader))
        self._rate.restart()
        for images, labels in self.train_loader.epoch(epoch, start=start):
            self.train_step(images, labels)
            self._rate.count(len(images))
            if self.step % self.config.log_every == 0:
                self._log_step(epoch)
            stopping = self._stopping  # read once: a signal handler may set it between two lines
            if self.step % len(self.train_loader) and (stopping or self._checkpoint_is_due()):
                self.save()
                self._rate.restart()
            if stopping:
                break
        if self.step % len(self.train_loader) == 0:
            self._log_epoch(epoch)
            self.save()

    def train_step(self, images: Tensor, labels: Tensor) -> None:
        """One iteration on images [m, C, H, W] and labels [m]."""
        self.optimizer.zero_grad()
        loss = self.task(images, labels)
        on_host = _HostCopy(loss)
        loss.backward()  # type: ignore[no-untyped-call]
        self._loss = on_host.wait()  # the iteration's one synchronisation, met while the backward pass still runs
        if not math.isfinite(self._loss):
            raise self._not_finite(f"the loss is {self._loss}", self.step + 1)
        self._lr = self.optimizer.param_groups[0]["lr"]
        self.optimizer.step()
        self.schedule.step()
        self._means.add(loss, self.task.hits())
        self.step += 1

    def request_stop(self, because: str | None = None) -> None:
        """Make :meth:`fit` save a checkpoint and return after the iteration that is under way.

        Args:
            because: what is wrong, for ``stopped_because``; None where nothing is.
        """
        self._stopping = True
        self.stopped_because = self.stopped_because or because

    def _checkpoint_is_due(self) -> bool:
        every = self.config.checkpoint_every
        return every > 0 and self.step % every == 0

    # --- records -----------------------------------------------------------------------------------------------------

    def _log_step(self, epoch: int) -> None:
        clean, adversarial = self.task.accuracy()
        record = StepRecord(
            step=self.step,
            epoch=epoch + 1,
            loss=self._loss,
            clean_accuracy=clean,
            adversarial_accuracy=adversarial,
            lr=self._lr,
            images_per_s=self._rate.per_second(),
        )
        self._write(record)
        self._rate.restart()

    def _log_epoch(self, epoch: int) -> None:
        means = self._means.read()
        record = EpochRecord(
            step=self.step,
            epoch=epoch + 1,
            mean_loss=means.loss,
            mean_clean_accuracy=means.clean,
            mean_adversarial_accuracy=means.adversarial,
            test_accuracy=accuracy(self.model, self.test_loader.epoch(0)),
        )
        self._write(record)
        self._means.restart()

    def _write(self, record: Record) -> None:
        for monitor in self._monitors:
            monitor.write(record)

    def _not_finite(self, what: str, iteration: int) -> NonFiniteLoss:
        indices = self.train_loader.indices.tolist()
        return NonFiniteLoss(what, iteration=iteration, indices=indices, checkpoint=self.last_checkpoint)

    # --- checkpoints -------------------------------------------------------------------------------------------------

    def save(self) -> Path:
        """Write a checkpoint of where the run stands.

        Raises:
            NonFiniteLoss: the weights are not finite; such a checkpoint would not be worth returning to.
            CheckpointError: it could not be written.
        """
        tensors = [tensor for tensor in self.model.state_dict().values() if tensor.is_floating_point()]
        if not all(tensor.isfinite().all() for tensor in tensors):
            raise self._not_finite("the weights are not finite", self.step)
        num_classes, in_channels = self.inputs
        meta = checkpoint.Meta(
            step=self.step, epoch=self.step // len(self.train_loader), num_classes=num_classes, in_channels=in_channels
        )
        self.last_checkpoint = checkpoint.save(
            self.run_dir, model=self.model, config=self.config, state=self._state(), meta=meta, keep=self.config.keep
        )
        return self.last_checkpoint

    def load(self, path: Path) -> None:
        """Continue from a checkpoint, exactly.

        Raises:
            CheckpointError: it is not usable, or the training set has another size than it had.
        """
        self.step = checkpoint.read_meta(path).step
        state = checkpoint.load_state(path)
        if state["steps_per_epoch"] != len(self.train_loader):
            raise checkpoint.CheckpointError(
                f"{path} was written with {state['steps_per_epoch']} iterations per epoch, "
                f"and the training set now has {len(self.train_loader)}: it is not the same data"
            )
        missing = sorted(self._state().keys() - state.keys())
        if missing:
            raise checkpoint.CheckpointError(f"{path} is of another version of fastadv: it lacks {', '.join(missing)}")
        checkpoint.load_weights(path, self.model)
        self.task.load_state_dict(state["task"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self._means.load_state_dict(state["means"])
        torch.set_rng_state(state["rng"])
        if self.device.type == "cuda" and state["cuda_rng"] is not None:
            torch.cuda.set_rng_state(state["cuda_rng"], self.device)
        self.last_checkpoint = path

    def _state(self) -> dict[str, Any]:
        return {
            "steps_per_epoch": len(self.train_loader),
            "task": self.task.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "means": self._means.state_dict(),
            "rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None,
        }


class _HostCopy:
    """A scalar on its way to the CPU: waiting for it does not wait for work that was queued after it."""

    def __init__(self, value: Tensor) -> None:
        self._value = value.detach().to("cpu", non_blocking=True)
        self._arrived = torch.cuda.Event() if value.is_cuda else None  # type: ignore[no-untyped-call]
        if self._arrived is not None:
            self._arrived.record(torch.cuda.current_stream(value.device))  # by itself it takes the current device's

    def wait(self) -> float:
        if self._arrived is not None:
            self._arrived.synchronize()
        return self._value.item()
