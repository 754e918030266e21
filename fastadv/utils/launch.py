"""The processes that torchrun started, as its environment variables describe them. Does not import PyTorch."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


class FailedElsewhere(RuntimeError):
    """Another process failed and reports why; this one ends with it."""


class ProcessLost(FailedElsewhere):
    """Another process died or cannot be reached, so it does not report why itself."""


@dataclass(frozen=True, kw_only=True)
class Processes:
    """This process among those that work together; by default, one that works alone.

    Args:
        rank: its number, from 0.
        world_size: how many there are.
        local_rank: its number among those of its machine, and that of its GPU.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0

    @property
    def main(self) -> bool:
        """True for the process that writes files and prints."""
        return self.rank == 0

    @property
    def alone(self) -> bool:
        """True if there is no other process."""
        return self.world_size == 1


ALONE = Processes()


def launched() -> Processes:
    """This process by torchrun's RANK, WORLD_SIZE and LOCAL_RANK; alone without torchrun."""
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    if not all(name in os.environ for name in names):  # some schedulers set RANK alone
        return ALONE
    rank, world_size, local_rank = (int(os.environ[name]) for name in names)
    return Processes(rank=rank, world_size=world_size, local_rank=local_rank)


def launch_name() -> str | None:
    """What the processes that one torchrun starts have in common, over all its restarts; None without torchrun.

    torchrun counts its restarts, too, but on each machine only those that this machine's processes caused.
    """
    error_file = os.environ.get("TORCHELASTIC_ERROR_FILE")  # LAUNCH/attempt_0/0/error.json
    return str(Path(error_file).parents[2]) if error_file else None
