"""Go back to the beginning of an iteration that must not count."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from fastadv.train.run import Run
from fastadv.train.run_state import restore_generators, states_of_generators


class Rewind:
    """A run's state before an iteration, without what :class:`UpdateGuard` keeps on the device; waits for nothing.

    The perturbations of free training are left out: they are as large as the minibatches, and stay in the eps ball
    whatever the gradient was.

    Args:
        run: the run, on this process.
        step: iterations done.
    """

    def __init__(self, run: Run, step: int) -> None:
        self.step = step
        self.rates = [group["lr"] for group in run.optimizer.param_groups]
        self._schedule = run.schedule.state_dict()
        self._generators = states_of_generators(run)
        self._task = None if run.config.attack.training == "free" else run.task.state_dict()
        self._buffers = _Copies(run.buffers())

    def apply(self, run: Run, *, step: int) -> None:
        """Restore the state, after the weights were updated up to iteration ``step``."""
        run.schedule.load_state_dict(self._schedule)
        for group, rate in zip(run.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate
        for state in run.optimizer.state.values():
            count = state.get("step")
            if isinstance(count, Tensor) and count.device.type == "cpu":
                count -= step - self.step
        restore_generators(run, self._generators)
        if self._task is not None:
            run.task.load_state_dict(self._task)
        self._buffers.restore()


class _Copies:
    """Copies of tensors, in one launch and one piece of memory for each dtype."""

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        self._of_dtypes: dict[torch.dtype, list[Tensor]] = {}
        for tensor in tensors:
            self._of_dtypes.setdefault(tensor.dtype, []).append(tensor)
        self._copies = [torch.cat([tensor.reshape(-1) for tensor in group]) for group in self._of_dtypes.values()]

    def restore(self) -> None:
        """Copy the values back."""
        for group, flat in zip(self._of_dtypes.values(), self._copies, strict=True):
            of_each = torch.split_with_sizes(flat, [tensor.numel() for tensor in group])
            for tensor, values in zip(group, of_each, strict=True):
                tensor.copy_(values.view_as(tensor))
