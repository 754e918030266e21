"""What the processes exchange in an iteration besides gradients: one all-reduce of 40 bytes.

It runs during the backward pass and carries everything that must be known before the weights change: the losses and
counts for the log, whether every loss is finite, and whether a process was asked to stop.
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
    """

    losses: float
    minibatches: int
    correct: tuple[float, float]
    examples: tuple[int, int]
    finite: bool
    stop: bool

    @property
    def loss(self) -> float:
        """Mean loss of the minibatches."""
        return self.losses / self.minibatches

    @property
    def accuracy(self) -> Accuracy:
        """Accuracy on the clean and on the adversarial examples."""
        return accuracy_of(self.correct, self.examples)


class StepMetrics:
    """Adds up one iteration: :meth:`add` each minibatch, :meth:`share` before the last backward pass, :meth:`wait`
    after it.

    Args:
        device: device of losses and counts.
        processes: the processes that share their sums.
    """

    def __init__(self, device: torch.device, processes: Processes) -> None:
        self.minibatches = 0
        self._processes = processes
        self._examples = (0, 0)
        # Loss, correct clean and adversarial examples, losses that are not finite, processes that were asked to stop.
        self._sums = torch.zeros(5, dtype=torch.float64, device=device)
        self._work: dist.Work | None = None

    def add(self, loss: Tensor, counts: CorrectCounts) -> None:
        """Add one minibatch of this process: its loss, a scalar, and its correct examples."""
        loss = loss.detach().double()
        self._sums[:4] += torch.cat([loss[None], counts.correct, ~loss.isfinite()[None]])
        clean, adversarial = counts.examples
        self._examples = self._examples[0] + clean, self._examples[1] + adversarial
        self.minibatches += 1

    def share(self, *, stop: bool) -> None:
        """Start to sum over the processes; ``stop`` says whether this one was asked to stop."""
        if stop:
            self._sums[4] += 1
        if not self._processes.alone:
            self._work = dist.all_reduce(self._sums, async_op=True)
            self.minibatches *= self._processes.world_size
            self._examples = (
                self._examples[0] * self._processes.world_size,
                self._examples[1] * self._processes.world_size,
            )
        self._host = _HostCopy(self._sums, self._work)

    def wait(self) -> StepTotals:
        """The iteration's only synchronisation. On a GPU it waits for the sums, not for the backward pass."""
        losses, clean, adversarial, not_finite, stop = self._host.wait()
        return StepTotals(losses, self.minibatches, (clean, adversarial), self._examples, not_finite == 0, stop > 0)


class _HostCopy:
    """Copies a vector to the CPU; waiting for it does not wait for work that was queued after it.

    Args:
        values: [N].
        work: the collective that computes them, if there is one. On a GPU a separate stream waits for it, so that the
            backward pass does not.
    """

    def __init__(self, values: Tensor, work: dist.Work | None) -> None:
        self._work = None if values.is_cuda else work
        self._arrived = torch.cuda.Event() if values.is_cuda else None  # type: ignore[no-untyped-call]
        if self._arrived is None:
            self._values = values
            return
        here = torch.cuda.current_stream(values.device)
        stream = here if work is None else torch.cuda.Stream(values.device)  # type: ignore[no-untyped-call]
        with torch.cuda.stream(stream):
            if work is not None:
                work.wait()
            self._values = values.to("cpu", non_blocking=True)
        self._arrived.record(stream)

    def wait(self) -> list[float]:
        if self._work is not None:
            self._work.wait()
        if self._arrived is not None:
            self._arrived.synchronize()
        return self._values.tolist()
