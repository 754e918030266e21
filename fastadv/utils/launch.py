"""The processes that torchrun started, as its environment variables describe them. Does not import PyTorch."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


class FailedElsewhere(RuntimeError):
    """Another process failed and reported why; this one ends as well."""


class ProcessLost(FailedElsewhere):
    """Another process died or cannot be reached, without reporting why."""


@dataclass(frozen=True, kw_only=True)
class Processes:
    """This process among those that train together; by default a single one.

    Args:
        rank: index of this process, from 0.
        world_size: number of processes.
        local_rank: index among the processes on this machine, and index of its GPU.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0

    @property
    def main(self) -> bool:
        """True in the process that writes files and prints."""
        return self.rank == 0

    @property
    def alone(self) -> bool:
        """True if there is only this process."""
        return self.world_size == 1


ALONE = Processes()


def launched() -> Processes:
    """Read RANK, WORLD_SIZE and LOCAL_RANK from torchrun's environment; without torchrun, return a single process."""
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    if not all(name in os.environ for name in names):  # some schedulers set only RANK
        return ALONE
    rank, world_size, local_rank = (int(os.environ[name]) for name in names)
    return Processes(rank=rank, world_size=world_size, local_rank=local_rank)


def launch_name() -> str | None:
    """Return a name that all processes of one torchrun share, across its restarts; None without torchrun.

    torchrun's own restart count would not do: each machine only counts the restarts that its processes caused.
    """
    error_file = os.environ.get("TORCHELASTIC_ERROR_FILE")  # LAUNCH/attempt_0/0/error.json
    return str(Path(error_file).parents[2]) if error_file else None
