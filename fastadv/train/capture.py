"""Training iterations as CUDA graphs: the third of its kind is recorded, and replayed from then on."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from torch import Tensor, nn, optim

from fastadv.attacks.engine.cuda_graph_recorder import NotCapturable, Recorder, create_recorder
from fastadv.train.device_averages import DeviceAverages
from fastadv.train.device_rates import DeviceRates
from fastadv.train.device_update import DeviceUpdate
from fastadv.train.protocols import Averages, RecordableTask, Task
from fastadv.train.step_metrics import StepMetrics
from fastadv.train.update_guard import UpdateGuard
from fastadv.utils.rng import RecordedDraws
from fastadv.utils.stacklevel import user_stacklevel

Forward = Callable[[Tensor, Tensor], tuple[Tensor, StepMetrics]]
Backward = Callable[[Tensor], None]
Update = Callable[[int, StepMetrics], None]


class Iteration(NamedTuple):
    """An iteration on one minibatch in three parts, each its own graph once it is recorded.

    If the first gave a loss that is not finite, the third has no effect. The host learns of it while the second runs,
    or in a later iteration.

    Args:
        forward: takes images [m, C, H, W], whose first k it makes adversarial, and labels [m]; returns the loss and the
            metrics to log.
        backward: takes the loss.
        update: updates the weights and their averages; takes the number of the iteration and its metrics.
    """

    forward: Forward
    backward: Backward
    update: Update


def create_graphs(
    forward: Forward,
    backward: Backward,
    step: Callable[[], None],
    *,
    guard: UpdateGuard | None,
    task: Task,
    model: nn.Module,
    optimizer: optim.Optimizer,
    averages: Averages | None,
    m: int,
) -> IterationGraphs | None:
    """Create the graphs of a training run; without a GPU to record on, warn and return None.

    Args:
        forward: see :class:`Iteration`, like ``backward``.
        step: clips the gradient and steps the optimiser.
        guard: undoes an update if a loss was not finite; None without a GPU.
        task: the task that ``forward`` calls.
        model: the model to train.
        optimizer: optimises the model's parameters.
        averages: averages them; None for no averaging.
        m: images in a minibatch.

    Raises:
        ValueError: if calls of the task cannot be recorded, or the optimiser cannot read its learning rate from the
            device.
    """
    if not isinstance(task, RecordableTask):
        raise ValueError(f"capture needs a task whose calls can be recorded, such as AdversarialTask, got {task}")
    device = next(model.parameters()).device
    rates = DeviceRates(optimizer, device)
    try:
        recorder = create_recorder(device)
    except NotCapturable as error:
        warnings.warn(f"training runs without capture: {error}", stacklevel=user_stacklevel())
        return None
    assert guard is not None
    own = None if averages is None else DeviceAverages(averages, model, device)
    update = DeviceUpdate(step, guard, rates, own)
    return IterationGraphs(forward=forward, backward=backward, update=update, task=task, recorder=recorder, m=m)


@dataclass
class _Kind:
    """Iterations that one recording can replay: how many there were, and the recording."""

    seen: int = 0
    recorded: RecordedIteration | None = None


class IterationGraphs:
    """Chooses how each iteration runs: eagerly, watched, or as a replay.

    The first iteration of a kind runs eagerly: checks of the first minibatch run, libraries choose their kernels, and
    the optimiser creates its state. The second is watched for operations that no graph can hold. The third is recorded,
    and replayed from then on. Minibatches of a size other than m run eagerly. If an iteration cannot be recorded, a
    warning says why, once, and all later ones run eagerly.

    Args:
        forward: see :class:`Iteration`, like ``backward``.
        update: used by eager iterations too, so that a resumed run repeats the bits of an uninterrupted one.
        task: the task that ``forward`` calls.
        recorder: records graphs.
        m: images in a minibatch.
    """

    def __init__(
        self,
        *,
        forward: Forward,
        backward: Backward,
        update: DeviceUpdate,
        task: RecordableTask,
        recorder: Recorder,
        m: int,
    ) -> None:
        self._eager = Iteration(forward, backward, self._update_eagerly)
        self._update = update
        self._task = task
        self._recorder = recorder
        self._m = m
        self._kinds: dict[Hashable, _Kind] = {}
        self._gave_up = False

    def choose(self, images: Tensor, labels: Tensor) -> Iteration:
        """Choose how the next iteration runs, on images [m, C, H, W] and labels [m].

        Warns:
            UserWarning: if the iteration cannot be recorded; says why.
        """
        if self._gave_up or len(images) != self._m:
            return self._eager
        kind = self._kinds.setdefault(self._kind_of(images, labels), _Kind())
        kind.seen += 1
        if kind.seen == 1:
            return self._eager
        if kind.seen == 2:
            return self._watched()
        if kind.recorded is None:
            kind.recorded = self._record(images, labels)
        return self._eager if kind.recorded is None else kind.recorded.iteration()

    def forget(self) -> None:
        """Drop all recordings: the optimiser's state has moved to other tensors."""
        self._recorder.finish()
        self._kinds.clear()

    def _kind_of(self, images: Tensor, labels: Tensor) -> Hashable:
        """What must stay the same for a recording to be replayed."""
        k = self._task.adversarial_of(len(images))
        return (k, *((tensor.shape, tensor.dtype) for tensor in (images, labels)))

    def _record(self, images: Tensor, labels: Tensor) -> RecordedIteration | None:
        forward, backward, _ = self._eager
        try:
            return RecordedIteration(forward, backward, self._update, images, labels, self._task, self._recorder)
        except Exception as error:  # of any kind: nothing has run yet, so the iteration can run eagerly
            self._task.take_passes()  # those that were to be recorded
            self._give_up(str(error) or type(error).__name__)
            return None

    def _give_up(self, reason: str) -> None:
        self._gave_up = True
        warnings.warn(f"training runs without capture: {reason}", stacklevel=user_stacklevel())

    def _update_eagerly(self, iteration: int, metrics: StepMetrics) -> None:
        self._update.prepare(iteration)
        self._update(metrics)

    def _watched(self) -> Iteration:
        found: list[str] = []

        def watch(work: Callable[[], None]) -> None:
            reason = self._recorder.watch(work)
            if reason is not None:
                found.append(reason)

        def forward(images: Tensor, labels: Tensor) -> tuple[Tensor, StepMetrics]:
            made: list[tuple[Tensor, StepMetrics]] = []
            watch(lambda: made.append(self._eager.forward(images, labels)))
            return made[0]

        def update(iteration: int, metrics: StepMetrics) -> None:
            self._update.prepare(iteration)
            watch(partial(self._update, metrics))
            if found:
                self._give_up(found[0])

        return Iteration(forward, lambda loss: watch(partial(self._eager.backward, loss)), update)


class RecordedIteration:
    """The graphs of an iteration, and the tensors that they read.

    Args:
        forward: recorded, like ``backward`` and ``update``.
        images: an example minibatch [m, C, H, W].
        labels: its labels [m].
        task: the task that ``forward`` calls.
        recorder: records the graphs.
    """

    def __init__(
        self,
        forward: Forward,
        backward: Backward,
        update: DeviceUpdate,
        images: Tensor,
        labels: Tensor,
        task: RecordableTask,
        recorder: Recorder,
    ) -> None:
        self._task = task
        self._recorder = recorder
        self._load = update.load
        self._images, self._labels = images.clone(), labels.clone()
        self._draws = RecordedDraws(images.device)
        made: list[tuple[Tensor, StepMetrics]] = []
        with task.recorded(self._draws):
            self._forward = recorder.record(lambda: made.append(forward(self._images, self._labels)))
        [(loss, self._metrics)] = made
        self._passes = task.take_passes()  # of each replay: recording ran nothing
        self._backward = recorder.record(partial(backward, loss))
        self._update = recorder.record(partial(update, self._metrics))
        # Detached: its graph would tie later backward passes to the stream of the recording.
        self._loss = loss.detach()  # scalar

    def iteration(self) -> Iteration:
        """An iteration that replays the graphs."""
        return Iteration(self._replay_forward, self._replay_backward, self._replay_update)

    def _replay_forward(self, images: Tensor, labels: Tensor) -> tuple[Tensor, StepMetrics]:
        with self._recorder.in_order():
            self._images.copy_(images)
            self._labels.copy_(labels)
            self._task.replay(self._draws)
            self._task.add_passes(self._passes)
            self._forward()
        return self._loss, self._metrics

    def _replay_backward(self, loss: Tensor) -> None:
        with self._recorder.in_order():
            self._backward()

    def _replay_update(self, iteration: int, metrics: StepMetrics) -> None:
        with self._recorder.in_order():
            self._load(iteration)
            self._update()
