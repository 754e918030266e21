"""What the processes tell each other in an iteration besides gradients: forty bytes, once.

Their sum is on its way while the backward pass runs, and carries all that an iteration must not go on without: what
the log reports, whether every loss was finite, and whether a process was asked to stop.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch import distributed as dist

from fastadv.distributed import Processes
from fastadv.train.tasks.adversarial import Accuracy, Hits


class Totals(NamedTuple):
    """Of one iteration, over the minibatches of all processes.

    Args:
        losses: the sum of the minibatches' losses.
        minibatches: how many there were.
        correct: clean and adversarial examples that were classified correctly.
        examples: clean and adversarial examples.
        finite: whether every loss is.
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
        """The mean of the minibatches' losses."""
        return self.losses / self.minibatches

    @property
    def accuracy(self) -> Accuracy:
        """Shares of the clean and of the adversarial examples; None where there was none."""
        return Accuracy(*shares(self.correct, self.examples))


def shares(correct: Iterable[float], examples: Iterable[int]) -> Iterator[float | None]:
    """Of each kind of example, the share that was classified correctly; None where there was none."""
    return (hits / count if count else None for hits, count in zip(correct, examples, strict=True))


class Tally:
    """Adds up one iteration: :meth:`add` each minibatch, :meth:`share` before the last backward pass, :meth:`wait`
    after it.

    Args:
        device: where losses and hits lie.
        processes: that share their sums.
    """

    def __init__(self, device: torch.device, processes: Processes) -> None:
        self.minibatches = 0
        self._processes = processes
        self._examples = (0, 0)
        # Loss, clean hits, adversarial hits, losses that are not finite, processes that were asked to stop.
        self._sums = torch.zeros(5, dtype=torch.float64, device=device)
        self._work: dist.Work | None = None

    def add(self, loss: Tensor, hits: Hits) -> None:
        """One minibatch of this process: its loss, a scalar, and its hits."""
        loss = loss.detach().double()
        self._sums[:4] += torch.cat([loss[None], hits.correct, ~loss.isfinite()[None]])
        clean, adversarial = hits.examples
        self._examples = self._examples[0] + clean, self._examples[1] + adversarial
        self.minibatches += 1

    def share(self, *, stop: bool) -> None:
        """Send the sums off; ``stop`` says whether this process was asked to."""
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

    def wait(self) -> Totals:
        """The iteration's one synchronisation: for the sums alone, not for the backward pass on a GPU."""
        losses, clean, adversarial, not_finite, stop = self._host.wait()
        return Totals(losses, self.minibatches, (clean, adversarial), self._examples, not_finite == 0, stop > 0)


class _HostCopy:
    """A vector on its way to the CPU: waiting for it does not wait for work that was queued after it.

    Args:
        values: [N].
        work: the collective that makes them, if there is one; on a GPU a stream of its own waits for it, so that the
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
