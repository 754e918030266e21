"""What the processes exchange in an iteration besides gradients: one all-reduce of 48 bytes.

It runs during the backward pass and carries the losses and counts for the log, whether every loss is finite, whether a
process was asked to stop, and the time that the main process took. The sums stay on the device; the host reads them
when it needs them.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch import distributed as dist

from fastadv.distributed import Processes
from fastadv.train.tasks.correct_counts import Accuracy, CorrectCounts, accuracy_of


class StepTotals(NamedTuple):
    """Totals of one iteration over the minibatches of all processes.

    Args:
        losses: sum of the minibatches' losses.
        minibatches: number of minibatches.
        correct: correctly classified examples, (clean, adversarial).
        examples: all examples, (clean, adversarial).
        finite: whether every loss is finite.
        stop: whether a process was asked to stop.
        seconds: time of the main process since it shared the metrics before; the same on every process.
    """

    losses: float
    minibatches: int
    correct: tuple[float, float]
    examples: tuple[int, int]
    finite: bool
    stop: bool
    seconds: float

    @property
    def loss(self) -> float:
        """Mean loss of the minibatches."""
        return self.losses / self.minibatches

    @property
    def accuracy(self) -> Accuracy:
        """Accuracy on the clean and on the adversarial examples."""
        return accuracy_of(self.correct, self.examples)


class StepMetrics:
    """Adds up one iteration: :meth:`add` each minibatch, and :meth:`share` before the last backward pass.

    Args:
        device: device of losses and counts.
        processes: the processes that share their sums.
    """

    def __init__(self, device: torch.device, processes: Processes) -> None:
        self._minibatches = 0
        self._processes = processes
        self._examples = (0, 0)
        # Loss, correct clean and adversarial examples, losses that are not finite, processes that were asked to stop,
        # seconds.
        self._sums = torch.zeros(6, dtype=torch.float64, device=device)
        self._work: dist.Work | None = None

    def add(self, loss: Tensor, counts: CorrectCounts) -> None:
        """Add one minibatch of this process: its loss, a scalar, and its correct examples."""
        loss = loss.detach().double()
        self._sums[:4] += torch.cat([loss[None], counts.correct, ~loss.isfinite()[None]])
        clean, adversarial = counts.examples
        self._examples = self._examples[0] + clean, self._examples[1] + adversarial
        self._minibatches += 1

    def share(self, copies: HostCopies, *, stop: bool, seconds: float) -> SharedMetrics:
        """Start to sum over the processes, and to copy the sums to the host.

        Args:
            copies: copies them.
            stop: whether this process was asked to stop.
            seconds: time of this process since it shared the metrics before.
        """
        if stop:
            self._sums[4] += 1
        if not self._processes.alone:
            if self._processes.main:
                self._sums[5] += seconds
            self._work = dist.all_reduce(self._sums, async_op=True)
        size = self._processes.world_size
        clean, adversarial = self._examples
        return SharedMetrics(
            copies.start(self._sums, self._work),
            self._minibatches * size,
            (clean * size, adversarial * size),
            seconds if self._processes.alone else None,
        )

    def not_finite(self) -> Tensor:
        """How many losses of all processes are not finite, a scalar on the device; call it after :meth:`share`.

        On a GPU, work that is queued from now on comes after the sum; the host does not wait.
        """
        if self._work is not None:
            self._work.wait()
        return self._sums[3]


class SharedMetrics:
    """The totals of an iteration on their way to the host.

    Args:
        copy: copy of the sums.
        minibatches: of all processes.
        examples: of all processes, (clean, adversarial).
        seconds: those of this process if it is alone; None if they are among the sums.
    """

    def __init__(self, copy: HostCopy, minibatches: int, examples: tuple[int, int], seconds: float | None) -> None:
        self._copy = copy
        self._minibatches = minibatches
        self._examples = examples
        self._seconds = seconds

    @property
    def losses(self) -> Tensor:
        """Sum of the losses over all processes, a scalar on the host with no value before :meth:`wait`."""
        return self._copy.values[0]

    def wait(self) -> None:
        """Wait for a GPU to have these sums and those that were shared before, but not for its backward pass."""
        self._copy.wait()

    def totals(self) -> StepTotals:
        """The totals; call it after :meth:`wait`, of this or of later sums."""
        losses, clean, adversarial, not_finite, stop, seconds = self._copy.read()
        return StepTotals(
            losses,
            self._minibatches,
            (clean, adversarial),
            self._examples,
            finite=not_finite == 0,
            stop=stop > 0,
            seconds=seconds if self._seconds is None else self._seconds,
        )


class HostCopies:
    """Copies vectors to the host, in the order of the calls.

    Args:
        device: device of the vectors. On a GPU, those of collectives are copied on a separate stream, so that the
            backward pass does not wait for other processes.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream: torch.cuda.Stream | None = None

    def start(self, values: Tensor, work: dist.Work | None) -> HostCopy:
        """Copy ``values`` [N] to the host when ``work``, the collective that computes them, is done."""
        if self._device.type == "cpu":
            return HostCopy(values, values, work, None)
        arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
        stream = torch.cuda.current_stream(self._device)
        if work is not None:
            stream = self._stream = self._stream or torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        with torch.cuda.stream(stream):
            if work is not None:
                work.wait()
            copy = values.to("cpu", non_blocking=True)
        arrived.record(stream)
        return HostCopy(copy, values, None, arrived)


class HostCopy(NamedTuple):
    """A vector on its way to the host; waiting for it does not wait for work that was queued after it.

    Args:
        values: [N] on the host.
        source: [N], kept until the copy is read.
        work: the collective to wait for, on the CPU.
        arrived: the event to wait for, on a GPU.
    """

    values: Tensor
    source: Tensor
    work: dist.Work | None
    arrived: torch.cuda.Event | None

    def wait(self) -> None:
        """Wait for the GPU to copy the values, and those of all copies that were started before."""
        if self.arrived is not None:
            self.arrived.synchronize()

    def read(self) -> list[float]:
        """The values; on a GPU, call :meth:`wait` before."""
        if self.work is not None:
            self.work.wait()
        return self.values.tolist()  # type: ignore[no-any-return]
