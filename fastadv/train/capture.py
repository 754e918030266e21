"""An iteration of training as CUDA graphs: recorded once it has run twice, and replayed from then on."""

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
from fastadv.utils.rng import RecordedDraws
from fastadv.utils.stacklevel import user_stacklevel

Forward = Callable[[Tensor, Tensor], tuple[Tensor, StepMetrics]]
Backward = Callable[[Tensor], None]


class Iteration(NamedTuple):
    """How an iteration on one minibatch runs, in three parts, each a graph of its own where it is recorded.

    The host learns from the first whether the loss is finite while the second runs, and leaves the third out if it is
    not.

    Args:
        forward: of images [m, C, H, W] and labels [m]: makes the first k adversarial; the loss, and what is logged.
        backward: of the loss.
        update: of the weights and their averages, of the iteration with this number.
    """

    forward: Forward
    backward: Backward
    update: Callable[[int], None]


def create_graphs(
    forward: Forward,
    backward: Backward,
    step: Callable[[], None],
    *,
    task: Task,
    model: nn.Module,
    optimizer: optim.Optimizer,
    averages: Averages | None,
    m: int,
) -> IterationGraphs | None:
    """What chooses how the iterations of a training run; None, and a warning, where there is no GPU to record on.

    Args:
        forward: see :class:`Iteration`, like ``backward``.
        step: clips the gradient and steps the optimiser.
        task: whose forward pass it is.
        model: whose weights are trained.
        optimizer: of them.
        averages: of them; None for none.
        m: images of a minibatch.

    Raises:
        ValueError: a task whose calls cannot be recorded, or an optimiser that takes no learning rate from the device.
    """
    if not isinstance(task, RecordableTask):
        raise ValueError(f"capture needs a task whose calls can be recorded, such as AdversarialTask, got {task}")
    device = next(model.parameters()).device
    rates = DeviceRates(optimizer, device)
    try:
        tape = create_recorder(device)
    except NotCapturable as error:
        warnings.warn(f"training runs without capture: {error}", stacklevel=user_stacklevel())
        return None
    own = None if averages is None else DeviceAverages(averages, model, device)
    update = DeviceUpdate(step, rates, own)
    return IterationGraphs(forward=forward, backward=backward, update=update, task=task, tape=tape, m=m)


@dataclass
class _Kind:
    """Iterations that one recording serves: how often they came, and the recording."""

    seen: int = 0
    recorded: RecordedIteration | None = None


class IterationGraphs:
    """Chooses how each iteration runs: as it is, watched, or replayed.

    The first iteration of a kind runs as it is: everything that looks at the first minibatch does so, libraries choose
    their kernels, and the optimiser makes its state. The second is watched for what no graph can hold. The third is
    recorded, and replayed from then on. A minibatch of another size than m runs as it is. What cannot be recorded is
    said in a warning, once, and then every iteration runs as it is.

    Args:
        forward: see :class:`Iteration`, like ``backward``.
        update: whether recorded or not: a resumed run then repeats the bits of one that was not interrupted.
        task: whose forward pass it is.
        tape: what records them.
        m: images of a minibatch.
    """

    def __init__(
        self,
        *,
        forward: Forward,
        backward: Backward,
        update: DeviceUpdate,
        task: RecordableTask,
        tape: Recorder,
        m: int,
    ) -> None:
        self._as_it_is = Iteration(forward, backward, self._update_as_it_is)
        self._update = update
        self._task = task
        self._tape = tape
        self._m = m
        self._kinds: dict[Hashable, _Kind] = {}
        self._refused = False

    def choose(self, images: Tensor, labels: Tensor) -> Iteration:
        """How the next iteration runs, on images [m, C, H, W] and labels [m].

        Warns:
            UserWarning: nothing is recorded any more, and why.
        """
        if self._refused or len(images) != self._m:
            return self._as_it_is
        kind = self._kinds.setdefault(self._fixed(images, labels), _Kind())
        kind.seen += 1
        if kind.seen == 1:
            return self._as_it_is
        if kind.seen == 2:
            return self._watched()
        if kind.recorded is None:
            kind.recorded = self._record(images, labels)
        return self._as_it_is if kind.recorded is None else kind.recorded.iteration()

    def forget(self) -> None:
        """Give up what was recorded: the optimiser's state has moved."""
        self._tape.finish()
        self._kinds.clear()

    def _fixed(self, images: Tensor, labels: Tensor) -> Hashable:
        """What a recording cannot follow if it changes."""
        k = self._task.adversarial_of(len(images))
        return (k, *((tensor.shape, tensor.dtype) for tensor in (images, labels)))

    def _record(self, images: Tensor, labels: Tensor) -> RecordedIteration | None:
        forward, backward, _ = self._as_it_is
        try:
            return RecordedIteration(forward, backward, self._update, images, labels, self._task, self._tape)
        except Exception as error:  # of any kind: nothing has run yet, and the iteration may run as it is
            self._refuse(str(error) or type(error).__name__)
            return None

    def _refuse(self, reason: str) -> None:
        self._refused = True
        warnings.warn(f"training runs without capture: {reason}", stacklevel=user_stacklevel())

    def _update_as_it_is(self, iteration: int) -> None:
        self._update.prepare(iteration)
        self._update()

    def _watched(self) -> Iteration:
        found: list[str] = []

        def watch(work: Callable[[], None]) -> None:
            reason = self._tape.watch(work)
            if reason is not None:
                found.append(reason)

        def forward(images: Tensor, labels: Tensor) -> tuple[Tensor, StepMetrics]:
            made: list[tuple[Tensor, StepMetrics]] = []
            watch(lambda: made.append(self._as_it_is.forward(images, labels)))
            return made[0]

        def update(iteration: int) -> None:
            self._update.prepare(iteration)
            watch(self._update)
            if found:
                self._refuse(found[0])

        return Iteration(forward, lambda loss: watch(partial(self._as_it_is.backward, loss)), update)


class RecordedIteration:
    """The graphs of an iteration, and the tensors that they read.

    Args:
        forward: what is recorded, like ``backward`` and ``update``.
        images: an example of a minibatch [m, C, H, W].
        labels: of it [m].
        task: whose forward pass it is.
        tape: what records them.
    """

    def __init__(
        self,
        forward: Forward,
        backward: Backward,
        update: DeviceUpdate,
        images: Tensor,
        labels: Tensor,
        task: RecordableTask,
        tape: Recorder,
    ) -> None:
        self._task = task
        self._tape = tape
        self._load = update.load
        self._images, self._labels = images.clone(), labels.clone()
        self._draws = RecordedDraws(images.device)
        made: list[tuple[Tensor, StepMetrics]] = []
        with task.recorded(self._draws):
            self._forward = tape.record(lambda: made.append(forward(self._images, self._labels)))
        [(loss, self._metrics)] = made
        self._backward = tape.record(partial(backward, loss))
        self._update = tape.record(update)
        # Without its history, whose nodes would tie later backward passes to the stream of the recording.
        self._loss = loss.detach()  # scalar

    def iteration(self) -> Iteration:
        """One that is replayed."""
        return Iteration(self._replay_forward, self._replay_backward, self._replay_update)

    def _replay_forward(self, images: Tensor, labels: Tensor) -> tuple[Tensor, StepMetrics]:
        with self._tape.in_order():
            self._images.copy_(images)
            self._labels.copy_(labels)
            self._task.replay(self._draws)
            self._forward()
        return self._loss, self._metrics

    def _replay_backward(self, loss: Tensor) -> None:
        with self._tape.in_order():
            self._backward()

    def _replay_update(self, iteration: int) -> None:
        with self._tape.in_order():
            self._load(iteration)
            self._update()
