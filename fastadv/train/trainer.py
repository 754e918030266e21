"""Trainer: the loop. It knows no attack: a task owns the forward pass and the loss."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fastadv.data.fingerprint import difference, other_classes
from fastadv.data.loaders.protocol import Loader
from fastadv.distributed import ALONE, Processes, average_buffers, gathered, gathered_on_main, on_all, on_main
from fastadv.train import checkpoint
from fastadv.train.capture import IterationGraphs, create_graphs
from fastadv.train.config import TrainConfig
from fastadv.train.epoch_metrics import RunningMeans
from fastadv.train.monitor import EpochRecord, Monitor, Pace, Record, StepRecord, monitoring
from fastadv.train.protocols import Averages, Task
from fastadv.train.run_state import run_misfit
from fastadv.train.step_metrics import Tally, Totals
from fastadv.train.validation import accuracy
from fastadv.utils.gpu_settings import gpu_settings


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


class _Begun(NamedTuple):
    """An iteration before its weights' update.

    Args:
        tally: shared, to be waited for.
        seen: of each minibatch, the loss and the indices [m].
        update: the weights and their averages, as the iteration with this number.
    """

    tally: Tally
    seen: list[tuple[Tensor, Tensor]]
    update: Callable[[int], None]


class Trainer:
    """Trains a model and keeps its run's folder: checkpoints, log and TensorBoard scalars.

    The position in the run is ``step`` alone: epoch and batch follow from it, and loaders are functions of these.

    Of several processes each has its own Trainer, and they meet in every iteration; the main one keeps the folder.

    Args:
        config: the run's.
        run_dir: its folder.
        model: the raw module, which is saved and tested; the task may hold it wrapped.
        task: forward pass and loss.
        optimizer: of the model's parameters.
        schedule: stepped after each iteration.
        train_loader: what this process trains on.
        test_loader: what to measure accuracy on at the end of each epoch, this process's share.
        classes: the names of the model's classes, in the order of its logits.
        in_channels: of the model's input.
        training_set: what tells it from others, by :func:`fastadv.data.identity_of`.
        chance: the test accuracy up to which a network may be guessing: the share of the commonest class, and two
            standard errors.
        processes: that train together.
        local_backward: around the forward and backward passes of all minibatches of an iteration but the last, whose
            gradients need not travel: ``DistributedDataParallel.no_sync``.
        averages: of the model's weights over the iterations; None for no averaging.

    Attributes:
        step: iterations done.
        last_checkpoint: the one written or loaded last.
        stopped_because: the reason given to :meth:`request_stop`.
        test_accuracy: of the weights, after the last epoch that was trained here; None before.
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
        classes: Sequence[str],
        in_channels: int,
        training_set: Mapping[str, Any],
        chance: float = 0.0,
        processes: Processes = ALONE,
        local_backward: Callable[[], AbstractContextManager[None]] = nullcontext,
        averages: Averages | None = None,
    ) -> None:
        self.config = config
        self.run_dir = run_dir
        self.model = model
        self.task = task
        self.optimizer = optimizer
        self.schedule = schedule
        self.train_loader = train_loader
        self.test_loader = test_loader
        self.classes = tuple(classes)
        self.in_channels = in_channels
        self.training_set = training_set
        self.chance = chance
        self.processes = processes
        self.averages = averages
        self.step = 0
        self.last_checkpoint: Path | None = None
        self.test_accuracy: float | None = None
        self._local_backward = local_backward
        self._totals: Totals | None = None
        self._lr = math.nan
        self._asked_to_stop = self._agreed_to_stop = False
        self.stopped_because: str | None = None
        self._pace = Pace()
        self._means = RunningMeans()
        self._monitors: list[Monitor] = []
        self._graphs = self._create_graphs() if config.capture else None

    @property
    def device(self) -> torch.device:
        """Where the model lies."""
        return next(self.model.parameters()).device

    @property
    def steps_per_epoch(self) -> int:
        """Iterations in an epoch; minibatches that do not fill a last one are left out."""
        return len(self.train_loader) // self.config.accumulate

    @property
    def total_steps(self) -> int:
        """Iterations of the whole run."""
        return self.config.epochs * self.steps_per_epoch

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
            FailedElsewhere: either, on the main process, as this one learns.
        """
        config = self.config
        with ExitStack() as stack:
            stack.enter_context(gpu_settings(self.device, cudnn_benchmark=config.cudnn_benchmark, tf32=config.tf32))
            on_main(self.processes, lambda: self._open_monitors(stack))
            if self.last_checkpoint is None:
                self.save()
            while not self.finished and not self._stopping:
                self._train_epoch()
        reasons = gathered(self.processes, self.stopped_because)
        self.stopped_because = next((reason for reason in reasons if reason is not None), None)

    def _open_monitors(self, stack: ExitStack) -> None:
        position = {"step": self.step, "total_steps": self.total_steps, "epochs": self.config.epochs}
        self._monitors = stack.enter_context(monitoring(self.run_dir, **position))

    def _train_epoch(self) -> None:
        """The rest of the current epoch, or as much of it as there is before a stop."""
        epoch, start = divmod(self.step, self.steps_per_epoch)
        minibatches = self._pace.awaited(self.train_loader.epoch(epoch, start=start * self.config.accumulate))
        self._pace.restart()
        for _ in range(start, self.steps_per_epoch):
            self.train_step(islice(minibatches, self.config.accumulate))
            if self.step % self.config.log_every == 0:
                self._log_step(epoch)
            stopping = self._stopping  # read once: a signal handler may set it between two lines
            if self.step % self.steps_per_epoch and (stopping or self._checkpoint_is_due()):
                self.save()
                self._pace.restart()
            if stopping:
                break
        if self.step % self.steps_per_epoch == 0:
            for module in self._modules():
                average_buffers(module, self.processes)
            self._log_epoch(epoch)
            self.save()

    def train_step(self, minibatches: Iterable[tuple[Tensor, Tensor]]) -> None:
        """One iteration on as many minibatches as are accumulated, of images [m, C, H, W] and labels [m]."""
        begun = self._begin(minibatches) if self._graphs is None else self._begin_on(self._graphs, minibatches)
        totals = begun.tally.wait()
        if not totals.finite:
            self._refuse_loss(begun.seen)
        self._totals, self._lr = totals, self.optimizer.param_groups[0]["lr"]
        self._agreed_to_stop = totals.stop
        begun.update(self.step + 1)
        self.schedule.step()
        self._means.add(totals)
        self.step += 1

    def _begin(self, minibatches: Iterable[tuple[Tensor, Tensor]]) -> _Begun:
        self.optimizer.zero_grad()
        tally = Tally(self.device, self.processes)
        seen: list[tuple[Tensor, Tensor]] = []
        for images, labels in minibatches:
            last = len(seen) + 1 == self.config.accumulate
            with nullcontext() if last else self._local_backward():
                loss = self._forward(images, labels, tally)
                seen.append((loss.detach(), self.train_loader.indices))
                if last:
                    tally.share(stop=self._asked_to_stop)
                self._backward(loss)
            self._pace.count(len(images) * self.processes.world_size)
        return _Begun(tally, seen, self._update)

    def _begin_on(self, graphs: IterationGraphs, minibatches: Iterable[tuple[Tensor, Tensor]]) -> _Begun:
        """The same of a single minibatch, by graphs as soon as they are recorded."""
        [(images, labels)] = minibatches
        iteration = graphs.choose(images, labels)
        loss, tally = iteration.forward(images, labels)
        tally.share(stop=self._asked_to_stop)
        iteration.backward(loss)
        self._pace.count(len(images))
        return _Begun(tally, [(loss.detach(), self.train_loader.indices)], iteration.update)

    def _forward_alone(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tally]:
        self.optimizer.zero_grad()
        tally = Tally(self.device, self.processes)
        return self._forward(images, labels, tally), tally

    def _forward(self, images: Tensor, labels: Tensor, tally: Tally) -> Tensor:
        """The loss of images [m, C, H, W] with labels [m]."""
        with self._autocast():
            loss = self.task(self._arranged(images), labels)
        tally.add(loss, self.task.hits())
        return loss

    def _backward(self, loss: Tensor) -> None:
        (loss / self.config.accumulate).backward()  # type: ignore[no-untyped-call]

    def _update(self, iteration: int) -> None:
        self._step_weights()
        if self.averages is not None:
            self.averages.update(self.model, iteration)

    def _step_weights(self) -> None:
        if self.config.clip_grad_norm is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip_grad_norm)
        self.optimizer.step()

    def request_stop(self, because: str | None = None) -> None:
        """Make :meth:`fit` save a checkpoint and return after the iteration that is under way.

        Of several processes one request is enough: all stop after the same iteration, at latest the one that follows.

        Args:
            because: what is wrong, for ``stopped_because`` of every process; None where nothing is.
        """
        self._asked_to_stop = True
        self.stopped_because = self.stopped_because or because

    @property
    def _stopping(self) -> bool:
        return self._asked_to_stop if self.processes.alone else self._agreed_to_stop

    def _checkpoint_is_due(self) -> bool:
        every = self.config.checkpoint_every
        return every > 0 and self.step % every == 0

    def _create_graphs(self) -> IterationGraphs | None:
        if not self.processes.alone:
            raise ValueError(f"capture does not go with several processes, got {self.processes.world_size}")
        return create_graphs(
            self._forward_alone,
            self._backward,
            self._step_weights,
            task=self.task,
            model=self.model,
            optimizer=self.optimizer,
            averages=self.averages,
            m=self.config.m,
        )

    def _autocast(self) -> AbstractContextManager[None]:
        half = self.config.precision == "bfloat16"
        return torch.autocast(self.device.type, dtype=torch.bfloat16) if half else nullcontext()

    def _arranged(self, images: Tensor) -> Tensor:  # [m, C, H, W]
        """The images in the layout of the weights."""
        return images.contiguous(memory_format=torch.channels_last) if self.config.in_channels_last else images

    def _modules(self) -> list[nn.Module]:
        """The model, and the one with its averaged weights if there is one."""
        return [self.model] if self.averages is None else [self.model, self.averages.module]

    # --- records -----------------------------------------------------------------------------------------------------

    def _log_step(self, epoch: int) -> None:
        assert self._totals is not None  # of the iteration that was just done
        clean, adversarial = self._totals.accuracy
        images_per_s, data_wait = self._pace.read()
        record = StepRecord(
            step=self.step,
            epoch=epoch + 1,
            loss=self._totals.loss,
            clean_accuracy=clean,
            adversarial_accuracy=adversarial,
            lr=self._lr,
            images_per_s=images_per_s,
            data_wait=data_wait,
        )
        self._write(record)
        self._pace.restart()

    def _log_epoch(self, epoch: int) -> None:
        means = self._means.read()
        tested = [self._test(module) for module in self._modules()]
        self.test_accuracy = tested[0]
        record = EpochRecord(
            step=self.step,
            epoch=epoch + 1,
            mean_loss=means.loss,
            mean_clean_accuracy=means.clean,
            mean_adversarial_accuracy=means.adversarial,
            test_accuracy=tested[0],
            test_accuracy_averaged=tested[1] if len(tested) > 1 else None,
        )
        self._write(record)
        self._means.restart()

    def _test(self, module: nn.Module) -> float:
        batches = ((self._arranged(images), labels) for images, labels in self.test_loader.epoch(0))
        with self._autocast():
            return accuracy(module, batches, self.processes)

    def _write(self, record: Record) -> None:
        for monitor in self._monitors:
            monitor.write(record)

    # --- what is not finite ------------------------------------------------------------------------------------------

    def _refuse_loss(self, seen: list[tuple[Tensor, Tensor]]) -> None:
        bad = [(f"the loss is {loss}", indices.tolist()) for loss, indices in seen if not loss.isfinite()]
        self._refuse(bad, self.step + 1)

    def _refuse_weights(self) -> None:
        tensors = [tensor for tensor in self.model.state_dict().values() if tensor.is_floating_point()]
        finite = bool(torch.stack([tensor.isfinite().all() for tensor in tensors]).all())  # one wait for a GPU
        bad = [] if finite else [("the weights are not finite", self.train_loader.indices.tolist())]
        self._refuse(bad, self.step)

    def _refuse(self, bad: list[tuple[str, list[int]]], iteration: int) -> None:
        """Raise on every process if one has found something bad: what it is, and the examples it came from."""
        for rank, found in enumerate(gathered(self.processes, bad)):
            for what, indices in found:
                where = "" if self.processes.alone else f"process {rank}: "
                raise NonFiniteLoss(where + what, iteration=iteration, indices=indices, checkpoint=self.last_checkpoint)

    # --- checkpoints -------------------------------------------------------------------------------------------------

    def save(self) -> Path:
        """Write a checkpoint of where the run stands, on the main process.

        Raises:
            NonFiniteLoss: the weights are not finite; such a checkpoint would not be worth returning to.
            CheckpointError: it could not be written.
        """
        self._refuse_weights()
        states = gathered_on_main(self.processes, self._own_state())
        self.last_checkpoint = on_main(self.processes, lambda: self._write_checkpoint(states))
        return self.last_checkpoint

    def _write_checkpoint(self, states: list[dict[str, Any]]) -> Path:
        return checkpoint.save(
            self.run_dir,
            model=self.model,
            averaged=None if self.averages is None else self.averages.module,
            config=self.config,
            classes=self.classes,
            state={**self._state(), "processes": states},
            meta=checkpoint.Meta(
                step=self.step,
                epoch=self.step // self.steps_per_epoch,
                in_channels=self.in_channels,
                processes=self.processes.world_size,
            ),
            keep=self.config.keep,
        )

    def load(self, path: Path) -> None:
        """Continue from a checkpoint, exactly if as many processes wrote it.

        It is read by the main process alone: the others need not see the folder. If its state is not of a form that
        this run can go on from, the last good one before it is taken, with a warning.

        Raises:
            CheckpointError: none is usable.
            ValueError: the training set is another than it was, or its classes have other names.
            FailedElsewhere: another process raised one of these.
        """
        path, saved = on_main(self.processes, lambda: self._usable(path))
        on_all(self.processes, lambda: self._check_training_set(saved, path))
        self._restore(saved)
        self.last_checkpoint = path

    def _restore(self, saved: checkpoint.Saved) -> None:
        """Stand where the run stood; of a form that was checked."""
        self.step, state = saved.meta.step, saved.state
        self.model.load_state_dict(saved.weights)
        if self.averages is not None:
            assert saved.averaged is not None
            self.averages.module.load_state_dict(saved.averaged)
        # The number of minibatches of an iteration may be another: the task counts them, a run counts iterations.
        self.task.load_state_dict({**state["task"], "iteration": self.step * self.config.accumulate})
        self.optimizer.load_state_dict(state["optimizer"])
        if self._graphs is not None:
            self._graphs.forget()
        # Of what is in the file only what a schedule has; its function stays, which PyTorch would let a file change.
        before = self.schedule.state_dict()
        kept = {name: state["schedule"].get(name, value) for name, value in before.items() if name != "lr_lambdas"}
        self.schedule.load_state_dict({**before, **kept})
        self._means.load_state_dict(state["means"])
        if len(state["processes"]) == self.processes.world_size or self.processes.main:
            self._load_own_state(state["processes"][self.processes.rank])

    def _usable(self, path: Path) -> tuple[Path, checkpoint.Saved]:
        """The checkpoint, or the last one before it that this run can go on from; and what it holds."""
        found: tuple[Path, checkpoint.Saved] | None = path, checkpoint.read(path)
        refused: list[str] = []
        while found is not None:
            if (reason := self._misfit(found[1])) is None:
                if refused:
                    warnings.warn(f"{'; '.join(refused)}; falling back to {found[0]}", stacklevel=2)
                return found
            refused.append(f"{found[0]} {reason}")
            found = checkpoint.newest(found[0].parent.parent, before=found[1].meta.step)
        raise checkpoint.CheckpointError(f"no usable checkpoint: {'; '.join(refused)}")

    def _misfit(self, saved: checkpoint.Saved) -> str | None:
        """Why this run cannot go on from a checkpoint; None if it can."""
        expected = {**self._state(), "processes": [self._own_state()]}
        if missing := sorted(expected.keys() - saved.state.keys()):
            return f"is of another version of fastadv: it lacks {', '.join(missing)}"
        if self.averages is not None and saved.averaged is None:
            return "has no averaged weights, and ema_decay asks for them"
        weights = [weight for group in self.optimizer.param_groups for weight in group["params"]]
        differs = run_misfit(
            saved.state,
            expected,
            step=saved.meta.step,
            processes=saved.meta.processes,
            weights=weights,
            buffers=list(self._buffers()),
            optimizer=self.config.optimizer,
        )
        return None if differs is None else f"is damaged: {differs}"

    def _check_training_set(self, saved: checkpoint.Saved, path: Path) -> None:
        differs = difference(saved.state["training_set"], self.training_set)
        if differs is None:
            differs = other_classes(saved.classes, self.classes)
        if differs is not None:
            raise ValueError(
                f"{path} is of another training set than {self.config.data.root or self.config.data.name}: {differs}. "
                f"Resume with the data that the run was begun with, wherever they lie now (--data DIR), or begin a "
                f"new run in another --out"
            )

    def _state(self) -> dict[str, Any]:
        """What all processes have in common, and the main one's task."""
        return {
            "training_set": dict(self.training_set),
            "task": self.task.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "means": self._means.state_dict(),
        }

    def _own_state(self) -> dict[str, Any]:
        """What each process has of its own: its generators, its buffers, such as running statistics, and its task.

        The main one's buffers are those that are saved with the weights, and its task is in :meth:`_state`.
        """
        return {
            "rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None,
            "buffers": [] if self.processes.main else [buffer.cpu() for buffer in self._buffers()],
            "task": None if self.processes.main else self.task.state_dict(),
        }

    def _load_own_state(self, state: dict[str, Any]) -> None:
        torch.set_rng_state(state["rng"])
        if self.device.type == "cuda" and state["cuda_rng"] is not None:
            torch.cuda.set_rng_state(state["cuda_rng"], self.device)
        for buffer, saved in zip(self._buffers(), state["buffers"], strict=False):
            buffer.copy_(saved)
        if state.get("task") is not None:
            self.task.load_state_dict(state["task"])

    def _buffers(self) -> Iterator[Tensor]:
        return (buffer for module in self._modules() for buffer in module.buffers())
