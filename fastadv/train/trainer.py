"""Trainer: the training loop. It knows no attack: a task computes the loss."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path

import torch
from torch import Tensor, nn

from fastadv.data.loaders.protocol import Loader
from fastadv.distributed import Processes, average_buffers, gathered, on_main
from fastadv.train.checkpoint import Saved, delete_after, newest
from fastadv.train.config import TrainConfig
from fastadv.train.cost import clean_epochs
from fastadv.train.iteration import IterationRunner
from fastadv.train.non_finite import check_weights, refuse_losses
from fastadv.train.outcomes import Outcome, Outcomes
from fastadv.train.protocols import Alarm, Averages, Task, Watch
from fastadv.train.rewind import Rewind
from fastadv.train.run import Run
from fastadv.train.run_log import RunLog
from fastadv.train.run_state import read_run, restore_run, save_run
from fastadv.train.step_metrics import StepTotals
from fastadv.train.validation import validate
from fastadv.utils.gpu_settings import gpu_settings
from fastadv.utils.stacklevel import user_stacklevel


class Trainer:
    """Trains a model and writes its run's folder: checkpoints, log and TensorBoard scalars.

    The position in the run is ``step`` alone: epoch and batch follow from it, and loaders are functions of these.

    With several processes, each has its own Trainer, and they communicate in every iteration; the main one writes the
    folder. :func:`create_trainer` makes one from a configuration.

    Args:
        run: what this process trains with.

    Attributes:
        step: iterations done.
        last_checkpoint: the checkpoint written or loaded last; None before.
        stopped_because: the reason given to :meth:`request_stop`.
        test_accuracy: test accuracy of the weights after the last epoch that was trained here; None before.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self.step = 0
        self.last_checkpoint: Path | None = None
        self.test_accuracy: float | None = None
        self.stopped_because: str | None = None
        self._asked_to_stop = self._agreed_to_stop = False
        self._totals: StepTotals | None = None  # of the last iteration that was read, like its learning rate
        self._lr = math.nan
        self._log = RunLog(run)
        self._outcomes = Outcomes(at_once=run.device.type == "cpu", log_every=run.config.log_every)
        self._iterations = self._create_runner()

    def _create_runner(self) -> IterationRunner:
        return IterationRunner(self.run, lambda: self._asked_to_stop)

    @property
    def config(self) -> TrainConfig:
        """Configuration of the run."""
        return self.run.config

    @property
    def run_dir(self) -> Path:
        """Folder of the run."""
        return self.run.run_dir

    @property
    def model(self) -> nn.Module:
        """The raw module, which the task may hold wrapped."""
        return self.run.model

    @property
    def task(self) -> Task:
        """Forward pass and loss."""
        return self.run.task

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """Updates the model's parameters."""
        return self.run.optimizer

    @property
    def averages(self) -> Averages | None:
        """Averages of the weights, with ``ema_decay``."""
        return self.run.averages

    @property
    def train_loader(self) -> Loader:
        """This process's share of the training set."""
        return self.run.train_loader

    @property
    def test_loader(self) -> Loader:
        """This process's share of the test set."""
        return self.run.test_loader

    @property
    def processes(self) -> Processes:
        """The processes that train together."""
        return self.run.processes

    @property
    def chance(self) -> float:
        """Test accuracy up to which a network may be guessing."""
        return self.run.chance

    @property
    def device(self) -> torch.device:
        """Device of the model."""
        return self.run.device

    @property
    def steps_per_epoch(self) -> int:
        """Iterations per epoch of the current phase; minibatches that do not fill a last one are left out."""
        return self.run.steps_per_epoch

    @property
    def total_steps(self) -> int:
        """Iterations of the whole run."""
        return self.run.total_steps

    @property
    def finished(self) -> bool:
        """Whether every epoch is done."""
        return self.step >= self.total_steps

    def fit(self) -> None:
        """Train to the last epoch, or until :meth:`request_stop`, and leave a checkpoint.

        Raises:
            NonFiniteLoss: if a loss or the weights are not finite; the weights are those before that iteration.
            CheckpointError: if a checkpoint could not be written.
            FailedElsewhere: if the main process raised one of these.
        """
        config = self.config
        with ExitStack() as stack:
            stack.enter_context(gpu_settings(self.device, cudnn_benchmark=config.cudnn_benchmark, tf32=config.tf32))
            on_main(self.processes, lambda: self._log.open(stack, self.step))
            if self.last_checkpoint is None:
                self.save()
            while not self.finished and not self._stopping:
                self._train_epoch()
        reasons = gathered(self.processes, self.stopped_because)
        self.stopped_because = next((reason for reason in reasons if reason is not None), None)

    def _train_epoch(self) -> None:
        """Train for the rest of the current epoch, or until a stop."""
        phase, epoch, start, steps_per_epoch = self.run.timeline.position(self.step)
        self._enter(phase)
        end = self.step - start + steps_per_epoch
        sentinel = self.run.sentinel
        if sentinel is not None:
            sentinel.keep_images(range(self.step + 1, end + 1))
        minibatches = self._log.timed(self.train_loader.epoch(epoch, start=start * self.config.accumulate))
        self._restart_clocks()
        for _ in range(start, steps_per_epoch):
            self.train_step(minibatches)
            if self.step % self.config.log_every == 0:
                assert self._totals is not None
                self._log.write_step(self.step, self._totals, self._lr)
            if sentinel is not None and self._sent_back_by(sentinel):
                return
            stopping = self._stopping  # read once: a signal handler may set it between two lines
            if self.step != end and (stopping or self._checkpoint_is_due()):
                self.save()
                self._restart_clocks()
            if stopping:
                break
        if self.step == end:
            self._finish_epoch()

    def _restart_clocks(self) -> None:
        self._log.restart_clock()
        self._iterations.restart_clock()

    def _enter(self, phase: int) -> None:
        """Go to another phase; recordings of iterations are dropped, as their shapes and their task are others."""
        if phase != self.run.phase:
            self._iterations.forget()
            self.run.enter(phase)
            self._iterations = self._create_runner()

    def _finish_epoch(self) -> None:
        """Test the weights and their averages, and save a checkpoint."""
        self._read()
        for module in self.run.modules():
            average_buffers(module, self.processes)
        test_accuracies = [validate(self.run, module) for module in self.run.modules()]
        self.test_accuracy = test_accuracies[0]
        self._log.write_epoch(self.step, test_accuracies)
        self.save()

    def train_step(self, minibatches: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Run one iteration on the next ``config.accumulate`` minibatches of images [m, C, H, W] and labels [m].

        On a GPU, the host learns only in every ``config.log_every``-th iteration, or after about a second, whether the
        losses were finite. Until then, no iteration after one with a loss that is not finite changes the weights.

        Raises:
            NonFiniteLoss: if a loss of this iteration, or of an earlier one that was not read, is not finite. That
                iteration and those after it do not count: ``step``, weights, buffers, averages, optimiser, schedule and
                generators are as before it.
        """
        before = Rewind(self.run, self.step)
        started = self._iterations.start(minibatches)
        cost = clean_epochs(self.task.take_passes(), self.run, self.run.stages[self.run.phase])
        self._outcomes.add(Outcome(before, started.shared, started.losses, started.images, cost))
        if self._outcomes.due(self.step + 1):
            self._read()
        started.update(self.step + 1)
        self.run.schedule.step()
        self.step += 1

    def _read(self) -> None:
        """Count the iterations that were not read; on a GPU, this waits for the last one's loss.

        Raises:
            NonFiniteLoss: at the first of their losses that is not finite.
        """
        for outcome, totals in self._outcomes.read():
            if not totals.finite:
                outcome.before.apply(self.run, step=self.step)
                self.step = outcome.before.step
                self._iterations.forget()
                refuse_losses(self.run, outcome.losses, iteration=self.step + 1, last_checkpoint=self.last_checkpoint)
            self._totals, self._lr = totals, outcome.before.rates[0]
            self._agreed_to_stop |= totals.stop
            self.run.cost += outcome.cost
            self._log.count(totals, outcome.images)

    def request_stop(self, because: str | None = None) -> None:
        """Make :meth:`fit` save a checkpoint and return after the current iteration.

        With several processes, a request to one is enough: all stop after the same iteration, on CPUs at the latest the
        next, on GPUs the next one whose outcome is read, within ``config.log_every`` iterations and about a second.

        Args:
            because: what is wrong, for ``stopped_because`` of every process; None if nothing is.
        """
        self._asked_to_stop = True
        self.stopped_because = self.stopped_because or because

    @property
    def _stopping(self) -> bool:
        return self._asked_to_stop if self.processes.alone else self._agreed_to_stop

    def _checkpoint_is_due(self) -> bool:
        every = self.config.checkpoint_every
        return every > 0 and self.step % every == 0

    def save(self) -> Path:
        """Save a checkpoint of the current state; the main process writes it.

        Raises:
            NonFiniteLoss: if a loss was not finite, or the weights are not: such a checkpoint would be useless.
            CheckpointError: if it could not be written.
        """
        self._read()
        check_weights(self.run, iteration=self.step, last_checkpoint=self.last_checkpoint)
        self.last_checkpoint = save_run(self.run, step=self.step, metrics=self._log.metrics)
        return self.last_checkpoint

    def load(self, path: Path) -> None:
        """Continue from a checkpoint, exactly if as many processes wrote it.

        Only the main process reads it: the others need not see the folder. If this run cannot use its state, the last
        good checkpoint before it is loaded, with a warning.

        Raises:
            CheckpointError: if no checkpoint is usable.
            ValueError: if the training set or the names of its classes differ from those of the checkpoint.
            FailedElsewhere: if another process raised one of these.
        """
        path, saved = read_run(self.run, path, self._log.metrics)
        self._restore(saved)
        self.last_checkpoint = path

    def _sent_back_by(self, sentinel: Watch) -> bool:
        """Act on the sentinel's alarm, if there is one; returns whether the run went back to an earlier checkpoint."""
        if sentinel.is_due(self.step):
            self._read()
            self.run.cost += clean_epochs(sentinel.passes, self.run, self.run.stages[self.run.phase])
        alarm = sentinel.after_step(self.step, self._log.write_check)
        if alarm is None:
            return False
        text = alarm.text
        if sentinel.recovers:
            path = on_main(self.processes, lambda: self._healthy(alarm))
            if path is not None:
                self._go_back(path)
                self._warn(f"{text}; the run is back at iteration {self.step:,} and goes on with n_fgsm")
                return True
            text += f"; no checkpoint of iteration {alarm.healthy:,} or before is left"
        if self.config.sentinel.then == "warn" or self.finished:
            self._warn(text)
        else:
            self.request_stop(text)
        return False

    def _healthy(self, alarm: Alarm) -> Path | None:
        found = newest(self.run_dir, before=alarm.healthy + 1)
        return None if found is None else found[0]

    def _go_back(self, path: Path) -> None:
        """Continue from an earlier checkpoint with the sentinel's attack; what came after it is deleted.

        The checkpoint may be of an earlier phase: the recovery is in the state of that phase's sentinel, from which the
        phases after it take it.
        """
        self.load(path)
        sentinel = self.run.sentinel
        assert sentinel is not None  # a run that recovers has one in every phase
        sentinel.recover()
        on_main(self.processes, lambda: self._log.go_back(self.step))
        self.save()
        on_main(self.processes, lambda: delete_after(self.run_dir, self.step))

    def _warn(self, text: str) -> None:
        if self.processes.main:
            warnings.warn(text, stacklevel=user_stacklevel())

    def _restore(self, saved: Saved) -> None:
        """Continue from a checkpoint that has been checked."""
        self.step = saved.meta.step
        # The phase that has just ended, at the end of one: the next begins as it does in an uninterrupted run.
        self._enter(self.run.timeline.position_of_last(self.step).phase)
        restore_run(self.run, saved, self._log.metrics)
        self._iterations.forget()
        self._outcomes.forget()
