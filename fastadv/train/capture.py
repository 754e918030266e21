"""An iteration of training as CUDA graphs: recorded once it has run twice, and replayed from then on."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, optim

from fastadv.attacks import recorder
from fastadv.attacks.recorder import Recorder
from fastadv.callers import caller_level
from fastadv.streams import RecordedDraws
from fastadv.train.device_rates import DeviceRates
from fastadv.train.interfaces import RecordableTask, Task
from fastadv.train.tally import Tally


class Parts(NamedTuple):
    """An iteration on one minibatch.

    It has three parts, each a graph of its own where it is recorded: the host learns from the first whether the loss is
    finite while the second runs, and leaves the third out if it is not.

    Args:
        forward: of images [m, C, H, W] and labels [m]: makes the first k adversarial; the loss, and what is logged.
        backward: of the loss.
        update: of the weights and their averages.
    """

    forward: Callable[[Tensor, Tensor], tuple[Tensor, Tally]]
    backward: Callable[[Tensor], None]
    update: Callable[[], None]


@dataclass
class _Kind:
    """Iterations that one recording serves: how often they came, and the recording."""

    seen: int = 0
    recorded: RecordedIteration | None = None


def create_graphs(
    parts: Parts, task: Task, optimizer: optim.Optimizer, *, m: int, device: torch.device
) -> IterationGraphs | None:
    """What records iterations of these parts; None, and a warning, where there is no GPU to record on.

    Raises:
        ValueError: a task whose call cannot be recorded, or an optimiser that needs its learning rate on the host.
    """
    if not isinstance(task, RecordableTask):
        raise ValueError(f"capture needs a task whose calls can be recorded, such as AdversarialTask, got {task!r}")
    rates = DeviceRates(optimizer, device)
    try:
        tape = recorder.create_recorder(device)
    except recorder.NotCapturable as error:
        warnings.warn(f"training runs without capture: {error}", stacklevel=caller_level())
        return None
    return IterationGraphs(parts, task, rates, tape, m)


class IterationGraphs:
    """Chooses how an iteration runs: as it is, watched, or replayed.

    The first iteration of a kind runs as it is: everything that looks at the first minibatch does so, libraries choose
    their kernels, and the optimiser makes its state. The second is watched for what no graph can hold. The third is
    recorded, and replayed from then on. A minibatch of another size than m runs as it is. What cannot be recorded is
    said in a warning, once, and then every iteration runs as it is.

    Args:
        parts: of an iteration that runs as it is.
        task: whose forward pass it is.
        rates: of the optimiser that ``parts.update`` steps.
        tape: what records them.
        m: images of a minibatch.
    """

    def __init__(self, parts: Parts, task: RecordableTask, rates: DeviceRates, tape: Recorder, m: int) -> None:
        self._task = task
        self._rates = rates
        self._tape = tape
        self._m = m
        self._kinds: dict[Hashable, _Kind] = {}
        self._refused = False
        # Every step takes its rates from the device, recorded or not: a resumed run repeats the whole one's bits.
        self._recordable = parts._replace(update=rates.in_place()(parts.update))
        self._parts = parts._replace(update=self._prepared)

    def parts(self, images: Tensor, labels: Tensor) -> Parts:
        """How the next iteration runs, on images [m, C, H, W] and labels [m].

        Warns:
            UserWarning: nothing is recorded any more, and why.
        """
        if self._refused or len(images) != self._m:
            return self._parts
        kind = self._kinds.setdefault(self._fixed(images, labels), _Kind())
        kind.seen += 1
        if kind.seen == 1:
            return self._parts
        if kind.seen == 2:
            return self._watched()
        if kind.recorded is None:
            kind.recorded = self._record(images, labels)
        return self._parts if kind.recorded is None else kind.recorded.parts()

    def forget(self) -> None:
        """Give up what was recorded: the optimiser's state has moved."""
        self._tape.finish()
        self._kinds.clear()

    def _fixed(self, images: Tensor, labels: Tensor) -> Hashable:
        """What a recording cannot follow if it changes."""
        k = self._task.adversarial_of(len(images))
        return (k, *((tensor.shape, tensor.dtype) for tensor in (images, labels)))

    def _record(self, images: Tensor, labels: Tensor) -> RecordedIteration | None:
        try:
            return RecordedIteration(self._recordable, images, labels, self._task, self._rates, self._tape)
        except Exception as error:  # of any kind: nothing has run yet, and the iteration may run as it is
            self._refuse(str(error) or type(error).__name__)
            return None

    def _refuse(self, reason: str) -> None:
        """Record nothing any more, and say why."""
        self._refused = True
        warnings.warn(f"training runs without capture: {reason}", stacklevel=caller_level())

    def _prepared(self) -> None:
        self._rates.prepare()
        self._recordable.update()

    def _watched(self) -> Parts:
        found: list[str] = []

        def watch(work: Callable[[], None]) -> None:
            reason = self._tape.watch(work)
            if reason is not None:
                found.append(reason)

        def forward(images: Tensor, labels: Tensor) -> tuple[Tensor, Tally]:
            made: list[tuple[Tensor, Tally]] = []
            watch(lambda: made.append(self._parts.forward(images, labels)))
            return made[0]

        def update() -> None:
            self._rates.prepare()
            watch(self._recordable.update)
            if found:
                self._refuse(found[0])

        return Parts(forward, lambda loss: watch(partial(self._parts.backward, loss)), update)


class RecordedIteration:
    """The graphs of an iteration, and the tensors that they read.

    Args:
        parts: what is recorded.
        images: an example of a minibatch [m, C, H, W].
        labels: of it [m].
        task: whose forward pass it is.
        rates: of the optimiser's groups.
        tape: what records them.
    """

    def __init__(
        self, parts: Parts, images: Tensor, labels: Tensor, task: RecordableTask, rates: DeviceRates, tape: Recorder
    ) -> None:
        self._task = task
        self._rates = rates
        self._tape = tape
        self._images, self._labels = images.clone(), labels.clone()
        self._draws = RecordedDraws(images.device)
        made: list[tuple[Tensor, Tally]] = []
        with task.recorded(self._draws):
            self._forward = tape.record(lambda: made.append(parts.forward(self._images, self._labels)))
        [(loss, self._tally)] = made
        self._backward = tape.record(partial(parts.backward, loss))
        self._update = tape.record(parts.update)
        # Without its history, whose nodes would tie later backward passes to the stream of the recording.
        self._loss = loss.detach()  # scalar

    def parts(self) -> Parts:
        """An iteration that is replayed."""
        return Parts(self._replay_forward, self._replay_backward, self._replay_update)

    def _replay_forward(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tally]:
        with self._tape.in_order():
            self._images.copy_(images)
            self._labels.copy_(labels)
            self._task.replay(self._draws)
            self._forward()
        return self._loss, self._tally

    def _replay_backward(self, loss: Tensor) -> None:
        with self._tape.in_order():
            self._backward()

    def _replay_update(self) -> None:
        with self._tape.in_order():
            self._rates.load()
            self._update()
