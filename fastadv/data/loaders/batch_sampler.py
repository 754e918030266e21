"""Batches: the examples of each batch of an epoch, for one of several processes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fastadv.utils.validation import check_count


@dataclass(frozen=True, kw_only=True)
class Batches:
    """Data-set indices of the batches of every epoch, which depend on (seed, epoch) alone.

    All processes share one order and read it in global batches of ``world_size`` times ``batch_size``; each takes its
    rows. The examples of a global batch do not depend on the number of processes if its size does not.

    Args:
        count: N, examples in the data set.
        batch_size: m, examples per batch of this process.
        shuffle: use a new random order in each epoch; otherwise that of the data set.
        drop_last: leave out the examples that do not fill a last global batch. Otherwise each example comes once over
            all processes: those of a smaller last global batch are spread evenly, so that a process may have one batch
            less than another.
        seed: fixes the order; the same for all processes.
        rank: number of this process.
        world_size: number of processes.

    Raises:
        ValueError: if a size, seed or rank is out of range, or ``drop_last`` leaves no batch.
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
        if self.drop_last and self.count < self._global_batch:
            of_all = f" on each of {world} processes" if world > 1 else ""
            raise ValueError(
                f"the training set has {self.count} images, fewer than a batch of {self.batch_size}{of_all}, and "
                f"incomplete batches are left out: choose a smaller batch_size (--minibatch)"
            )

    @property
    def _global_batch(self) -> int:
        return self.batch_size * self.world_size

    def __len__(self) -> int:
        """Batches in an epoch, of this process."""
        full, rest = divmod(self.count, self._global_batch)
        start, end = self._share(rest)
        return full if self.drop_last or start == end else full + 1

    def of_epoch(
        self, epoch: int, start: int = 0, device: torch.device | None = None
    ) -> Iterator[Tensor]:  # [m] int64 each
        """Indices of each batch of one epoch, starting at batch ``start``.

        If a device is given, the whole order is copied there once: copying each batch would wait for the device.

        Raises:
            ValueError: if epoch or start is out of range.
        """
        check_count("epoch", epoch, least=0)
        if not 0 <= start <= len(self):
            raise ValueError(f"start must be a batch of the epoch, 0..{len(self)}, got {start}")
        return self._batches(epoch, start, device)

    def _batches(self, epoch: int, start: int, device: torch.device | None) -> Iterator[Tensor]:
        order = self._order(epoch).to(device)  # [N]
        for batch in range(start, len(self)):
            rows = order[batch * self._global_batch : (batch + 1) * self._global_batch]  # [W * m]
            yield rows[slice(*self._share(len(rows)))]

    def _share(self, rows: int) -> tuple[int, int]:
        """Start and end of this process's rows in a global batch of ``rows`` rows."""
        return rows * self.rank // self.world_size, rows * (self.rank + 1) // self.world_size

    def _order(self, epoch: int) -> Tensor:  # [N]
        if not self.shuffle:
            return torch.arange(self.count, device="cpu")
        return torch.randperm(self.count, generator=generator_of(self.seed, epoch), device="cpu")


def generator_of(seed: int, *path: int) -> torch.Generator:
    """Create a CPU generator for an epoch's order, or for other draws of the epoch.

    NumPy mixes the numbers into one seed: torch's CPU generator keeps only 32 bits of a seed, so sums or shifts of
    numbers would collide.
    """
    mixed = np.random.SeedSequence(seed, spawn_key=path).generate_state(1)
    return torch.Generator("cpu").manual_seed(int(mixed[0]))
