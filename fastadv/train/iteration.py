"""One iteration of training: forward and backward passes over its minibatches, then the update of the weights."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from itertools import islice
from typing import NamedTuple

from torch import Tensor, nn

from fastadv.train.capture import IterationGraphs, create_graphs
from fastadv.train.protocols import BackwardTask, LossTask, RecordableTask
from fastadv.train.run import Run
from fastadv.train.step_metrics import HostCopies, SharedMetrics, StepMetrics
from fastadv.train.update_guard import UpdateGuard


class Started(NamedTuple):
    """An iteration whose passes are under way and whose weights are not updated yet.

    Args:
        shared: its totals over all processes, to be waited for.
        losses: for each minibatch of this process the loss, a scalar, and the data-set indices [m].
        images: number of images of this process.
        update: updates the weights and their averages; takes the number of the iteration, from 1. On a GPU it has no
            effect if a loss so far was not finite.
    """

    shared: SharedMetrics
    losses: list[tuple[Tensor, Tensor]]
    images: int
    update: Callable[[int], None]


class IterationRunner:
    """Runs the iterations of a run, as CUDA graphs if ``config.capture`` is set and they can be recorded.

    Args:
        run: the run, on this process.
        stop_requested: whether this process was asked to stop, which it tells the others.

    Raises:
        ValueError: if ``config.capture`` is set with several processes, or with a task or an optimiser that cannot be
            captured.
    """

    def __init__(self, run: Run, stop_requested: Callable[[], bool]) -> None:
        self._run = run
        self._stop_requested = stop_requested
        self._copies = HostCopies(run.device)
        self._guard = None if run.device.type == "cpu" else UpdateGuard(run)
        self._shared_at = time.perf_counter()
        self._graphs = self._create_graphs() if run.config.capture else None

    def start(self, minibatches: Iterable[tuple[Tensor, Tensor]]) -> Started:
        """Run both passes over ``config.accumulate`` minibatches of images [m, C, H, W] and labels [m]."""
        taken = islice(minibatches, self._run.config.accumulate)
        return self._start_eager(taken) if self._graphs is None else self._start_on(self._graphs, taken)

    def forget(self) -> None:
        """Forget losses that were not finite, and recorded graphs: the run continues from another state."""
        if self._guard is not None:
            self._guard.reset()
        if self._graphs is not None:
            self._graphs.forget()

    def restart_clock(self) -> None:
        """Exclude the time until now from the seconds among the totals."""
        self._shared_at = time.perf_counter()

    def _start_eager(self, minibatches: Iterable[tuple[Tensor, Tensor]]) -> Started:
        run = self._run
        run.optimizer.zero_grad()
        metrics = StepMetrics(run.device, run.processes)
        losses: list[tuple[Tensor, Tensor]] = []
        shared: SharedMetrics | None = None
        count = 0
        for images, labels in minibatches:
            last = len(losses) + 1 == run.config.accumulate
            with nullcontext() if last else run.local_backward():
                loss, shared = self._passes(images, labels, metrics, last=last)
                losses.append((loss, run.train_loader.indices))
            count += len(images)
        assert shared is not None, f"an iteration has {run.config.accumulate} minibatches, got {len(losses)}"
        return Started(shared, losses, count, lambda number: self._update(number, metrics))

    def _passes(
        self, images: Tensor, labels: Tensor, metrics: StepMetrics, *, last: bool
    ) -> tuple[Tensor, SharedMetrics | None]:
        """Both passes of images [m, C, H, W] with labels [m]; returns the loss, detached, and the totals.

        The totals are shared once, as soon as the loss of the last minibatch is known.
        """
        task = self._run.task
        if isinstance(task, BackwardTask):
            with self._run.autocast():
                loss = task.backward(self._run.in_weight_layout(images), labels, self._backward)
            metrics.add(loss, task.hits())
        else:
            loss = self._forward(task, images, labels, metrics)
        shared = self._share(metrics) if last else None
        if not isinstance(task, BackwardTask):
            self._backward(loss)
        return loss.detach(), shared

    def _share(self, metrics: StepMetrics) -> SharedMetrics:
        """Share the metrics, with the time since the last call."""
        before, self._shared_at = self._shared_at, time.perf_counter()
        return metrics.share(self._copies, stop=self._stop_requested(), seconds=self._shared_at - before)

    def _start_on(self, graphs: IterationGraphs, minibatches: Iterable[tuple[Tensor, Tensor]]) -> Started:
        """The same for a single minibatch, replayed from graphs once they are recorded."""
        [(images, labels)] = minibatches
        iteration = graphs.choose(images, labels)
        loss, metrics = iteration.forward(images, labels)
        shared = self._share(metrics)
        iteration.backward(loss)
        # The totals' copy of the loss: the next replay overwrites the loss itself.
        losses = [(shared.losses, self._run.train_loader.indices)]
        return Started(shared, losses, len(images), lambda number: iteration.update(number, metrics))

    def _create_graphs(self) -> IterationGraphs | None:
        run = self._run
        if not run.processes.alone:
            raise ValueError(f"capture does not go with several processes, got {run.processes.world_size}")
        return create_graphs(
            self._forward_alone,
            self._backward,
            self._step_weights,
            guard=self._guard,
            task=run.task,
            model=run.model,
            optimizer=run.optimizer,
            averages=run.averages,
            m=run.phase_config.m,
        )

    def _forward_alone(self, images: Tensor, labels: Tensor) -> tuple[Tensor, StepMetrics]:
        """The forward pass of an iteration that has a single minibatch."""
        self._run.optimizer.zero_grad()
        metrics = StepMetrics(self._run.device, self._run.processes)
        assert isinstance(self._run.task, RecordableTask)
        return self._forward(self._run.task, images, labels, metrics), metrics

    def _forward(self, task: LossTask, images: Tensor, labels: Tensor, metrics: StepMetrics) -> Tensor:
        """The loss of images [m, C, H, W] with labels [m], which is added to the metrics."""
        with self._run.autocast():
            loss = task(self._run.in_weight_layout(images), labels)
        metrics.add(loss, task.hits())
        return loss

    def _backward(self, loss: Tensor) -> None:
        (loss / self._run.config.accumulate).backward()  # type: ignore[no-untyped-call]

    def _update(self, iteration: int, metrics: StepMetrics) -> None:
        with nullcontext() if self._guard is None else self._guard.over(metrics.not_finite()):
            self._step_weights()
            if self._run.averages is not None:
                self._run.averages.update(self._run.model, iteration)

    def _step_weights(self) -> None:
        config = self._run.config
        if config.clip_grad_norm is not None:
            nn.utils.clip_grad_norm_(self._run.model.parameters(), config.clip_grad_norm)
        self._run.optimizer.step()
