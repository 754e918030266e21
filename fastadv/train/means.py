"""An epoch's means: added up where the model lies, so that only reading them waits for it."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from fastadv.train.task import Hits


class Means(NamedTuple):
    """Of minibatches: the mean loss, and shares of their examples; None where there was no such example."""

    loss: float
    clean: float | None
    adversarial: float | None


class RunningMeans:
    """Means since the last restart.

    Args:
        device: where losses and hits lie.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.restart()

    def restart(self) -> None:
        """Begin anew."""
        self._sums = torch.zeros(3, dtype=torch.float64, device=self._device)  # [3] loss, clean, adversarial
        self._counts = [0, 0, 0]

    def add(self, loss: Tensor, hits: Hits, minibatches: int = 1) -> None:
        """So many minibatches: the sums of their losses, a scalar, and of their hits."""
        self._sums[0] += loss.detach()
        self._sums[1:] += hits.correct
        self._counts = [count + more for count, more in zip(self._counts, (minibatches, *hits.examples), strict=True)]

    def read(self) -> Means:
        """The means of one minibatch or more; waits for the device."""
        loss, *hits = self._sums.tolist()
        minibatches, *examples = self._counts
        clean, adversarial = (hit / count if count else None for hit, count in zip(hits, examples, strict=True))
        return Means(loss / minibatches, clean, adversarial)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint in the middle of an epoch needs."""
        return {"sums": self._sums.tolist(), "counts": self._counts}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from :meth:`state_dict`."""
        self._sums = torch.tensor(state["sums"], dtype=torch.float64, device=self._device)  # [3]
        self._counts = state["counts"]
