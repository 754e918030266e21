"""Batches: which examples make up each batch of an epoch, for one process of several."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fastadv.utils.validation import check_count


@dataclass(frozen=True, kw_only=True)
class Batches:
    """Data-set indices of the batches of every epoch: functions of (seed, epoch), whatever was asked for before.

    All processes have one order and read it in global batches of ``world_size`` times ``batch_size``, of which each
    takes its rows: the order does not depend on their number as long as the global batch does not.

    Args:
        count: N, the examples of the data set.
        batch_size: m, the examples in a batch of this process.
        shuffle: a new random order in each epoch; otherwise the data set's own.
        drop_last: leave out the examples that do not fill a last global batch. Otherwise each example comes once over
            all processes: those of a last, smaller global batch are spread evenly, so that a process may have a batch
            less than another.
        seed: fixes the order; the same for all processes.
        rank: which of the processes this is.
        world_size: how many there are.

    Raises:
        ValueError: a size, seed or rank out of range, or fewer examples than one global batch for training.
    """

    count: int
    batch_size: int
    shuffle: bool
    drop_last: bool
    seed: int = 0
    rank: int = 0
    world_size: int = 1

    def __post_init__(self) -> None:
        check_count("batch_size", self.batch_size, least=1)
        check_count("seed", self.seed, least=0)
        world = self.world_size
        if not 0 <= self.rank < world:
            raise ValueError(f"rank must be one of {world} processes, 0..{world - 1}, got {self.rank}")
        if self.drop_last and self.count < self._whole:
            of_all = f" on each of {world} processes" if world > 1 else ""
            raise ValueError(
                f"the training set has {self.count} images, fewer than a batch of {self.batch_size}{of_all}, and "
                f"incomplete batches are left out: choose a smaller batch_size (--minibatch)"
            )

    @property
    def _whole(self) -> int:
        return self.batch_size * self.world_size

    def __len__(self) -> int:
        """Batches in an epoch, of this process."""
        full, rest = divmod(self.count, self._whole)
        start, end = self._share(rest)
        return full if self.drop_last or start == end else full + 1

    def of_epoch(
        self, epoch: int, start: int = 0, device: torch.device | None = None
    ) -> Iterator[Tensor]:  # [m] int64 each
        """The indices of each batch of one epoch, from batch ``start`` on.

        On a device, if one is given: the whole order is moved there once, for a copy of each batch would wait for it.

        Raises:
            ValueError: epoch or start out of range.
        """
        check_count("epoch", epoch, least=0)
        if not 0 <= start <= len(self):
            raise ValueError(f"start must be a batch of the epoch, 0..{len(self)}, got {start}")
        return self._batches(epoch, start, device)

    def _batches(self, epoch: int, start: int, device: torch.device | None) -> Iterator[Tensor]:
        order = self._order(epoch).to(device)  # [N]
        for batch in range(start, len(self)):
            rows = order[batch * self._whole : (batch + 1) * self._whole]  # [W * m]
            yield rows[slice(*self._share(len(rows)))]

    def _share(self, rows: int) -> tuple[int, int]:
        """Where this process's part of a global batch of so many rows begins and ends."""
        return rows * self.rank // self.world_size, rows * (self.rank + 1) // self.world_size

    def _order(self, epoch: int) -> Tensor:  # [N]
        if not self.shuffle:
            return torch.arange(self.count, device="cpu")
        return torch.randperm(self.count, generator=generator_of(self.seed, epoch), device="cpu")


def generator_of(seed: int, *path: int) -> torch.Generator:
    """A CPU generator of its own for an epoch's order, and for what else is drawn in it.

    NumPy mixes the numbers into one seed: torch's CPU generator keeps only 32 bits of it, so that seeds made by adding
    or shifting would collide.
    """
    mixed = np.random.SeedSequence(seed, spawn_key=path).generate_state(1)
    return torch.Generator("cpu").manual_seed(int(mixed[0]))
