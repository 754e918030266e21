"""Processes that train one network together: torchrun starts them, and each keeps a copy of the network.

Between them travel the gradients, by DistributedDataParallel; 40 bytes a step (see ``tally.py``); and, where a run
begins, is saved or ends, the small objects of the functions below.
"""

from __future__ import annotations

import inspect
import os
import re
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import distributed as dist
from torch import nn
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

# A process that waits longer for the others than they take to evaluate and to save gives up with an error. One that
# ends earlier is not waited for at all: torchrun ends the others.
_TIMEOUT = timedelta(minutes=10)
_OF_GLOO = re.compile(r"\[\S*gloo/\S+\] ")  # which raises RuntimeError alone, and begins with the line of its code

T = TypeVar("T")


class FailedElsewhere(RuntimeError):
    """Another process failed, and says why: this one ends with it."""


class ProcessLost(FailedElsewhere):
    """Another process has died, or cannot be reached: it does not say so itself."""


@dataclass(frozen=True, kw_only=True)
class Processes:
    """This process among those that train together; as it stands, one that trains alone.

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
        """Whether this is the one that writes files and prints."""
        return self.rank == 0

    @property
    def alone(self) -> bool:
        """Whether there is no other."""
        return self.world_size == 1


ALONE = Processes()

# --- begin and end ---------------------------------------------------------------------------------------------------


def launched() -> Processes:
    """What torchrun's environment says of this process: RANK, WORLD_SIZE, LOCAL_RANK. Without torchrun it is alone."""
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


@contextmanager
def process_group() -> Iterator[Processes]:
    """Within the block, the processes that torchrun started are a group; one that is alone needs none.

    Tensors on the CPU travel by gloo, those on a GPU by NCCL. After an error in the block the group is left as it is:
    to dissolve it could mean to wait for those that wait for this process.

    Raises:
        ProcessLost: within the block, too, where a collective fails for want of another process.
    """
    processes = launched()
    if processes.alone:
        yield processes
        return
    try:
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo",
            store=_store_of_their_own(processes),
            rank=processes.rank,
            world_size=processes.world_size,
            timeout=_TIMEOUT,
        )
        yield processes
        dist.destroy_process_group()
    except RuntimeError as error:
        where, reason = _OF_GLOO.match(str(error)), str(error)
        if not isinstance(error, dist.DistError) and where is None:
            raise
        reason = reason[where.end() if where else 0 :].partition("\n")[0].partition(". ")[0]
        raise ProcessLost(f"another process has died or cannot be reached ({reason})") from error


def _store_of_their_own(processes: Processes) -> dist.Store:
    """A part of torchrun's store under a name that these processes alone know.

    torchrun keeps its store when it starts processes anew, with the addresses of those that died: under the usual name
    they would be connected to. So each process says hello by a word that it makes up, and the main one answers to that
    word with the name that it makes up, until all have confirmed it; words of the dead get answers that nobody reads.
    """
    store, _, _ = next(iter(rendezvous("env://", timeout=_TIMEOUT)))
    made_up, hello = uuid.uuid4().hex, "fastadv/hello/{}".format
    if not processes.main:
        store.set(hello(processes.rank), made_up)
        name = store.get(made_up).decode()  # waits
        store.set(f"{name}/{processes.rank}", "")
        return dist.PrefixStore(name, store)
    until = time.monotonic() + _TIMEOUT.total_seconds()
    absent = list(range(1, processes.world_size))
    while absent:
        if time.monotonic() > until:
            raise TimeoutError(f"after {_TIMEOUT}, of {processes.world_size} processes {absent} are not there")
        for rank in absent:
            if store.check([hello(rank)]):
                store.set(store.get(hello(rank)).decode(), made_up)
        time.sleep(0.01)
        absent = [rank for rank in absent if not store.check([f"{made_up}/{rank}"])]
    return dist.PrefixStore(made_up, store)


def current() -> Processes:
    """Return this process within the program's process group, however that was created; alone if there is none."""
    if not (dist.is_available() and dist.is_initialized()):
        return ALONE
    return Processes(rank=dist.get_rank(), world_size=dist.get_world_size(), local_rank=launched().local_rank)


def device_name(name: str, processes: Processes) -> str:
    """Where a process trains whose configuration says ``name``: of several, each on its own GPU.

    Raises:
        ValueError: one particular GPU for several processes.
    """
    if processes.alone or name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return name
    if name not in ("auto", "cuda"):
        raise ValueError(f"device must be auto, cuda or cpu for {processes.world_size} processes, got {name!r}")
    return f"cuda:{processes.local_rank}"


def seed_draws(seed: int, processes: Processes) -> None:
    """Let each process draw its own dropout, after all have drawn the same initial weights."""
    if not processes.main:
        mixed = np.random.SeedSequence(seed, spawn_key=(processes.rank,)).generate_state(1)
        torch.manual_seed(int(mixed[0]))


def data_parallel(model: nn.Module, device: torch.device, *, static_graph: bool) -> DistributedDataParallel:
    """The model, with gradients that are averaged over all processes while the backward pass runs.

    Buffers are left alone: BatchNorm's running statistics are each process's own until :func:`average_buffers`.

    Args:
        model: the same on every process, on ``device``.
        device: this process's.
        static_graph: every iteration uses the same parameters. Not together with ``no_sync()``, which PyTorch's static
            graphs do not survive, nor with ``torch.compile``.
    """
    options: dict[str, Any] = {"gradient_as_bucket_view": True, "static_graph": static_graph}
    # The name changed between the versions of PyTorch that this package runs with.
    known = inspect.signature(DistributedDataParallel).parameters
    options["forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"] = False
    return DistributedDataParallel(model, device_ids=[device] if device.type == "cuda" else None, **options)


@torch.no_grad()
def average_buffers(model: nn.Module, processes: Processes) -> None:
    """Replace every floating-point buffer by its mean over the processes: one all-reduce."""
    buffers = [buffer for buffer in model.buffers() if buffer.is_floating_point()]
    if processes.alone or not buffers:
        return
    flat = torch.cat([buffer.flatten().double() for buffer in buffers])  # [B]
    dist.all_reduce(flat)
    means = (flat / processes.world_size).split(  # type: ignore[no-untyped-call]
        [buffer.numel() for buffer in buffers]
    )
    for buffer, mean in zip(buffers, means, strict=True):
        buffer.copy_(mean.view_as(buffer))


# --- what one does and all know --------------------------------------------------------------------------------------


def on_main(processes: Processes, work: Callable[[], T]) -> T:
    """What ``work()`` returns on the main process, on all of them.

    Raises:
        FailedElsewhere: ``work`` raised; on the main process, what it raised.
    """
    if processes.alone:
        return work()
    outcome: list[Any] = [None]  # nothing after an error, else a tuple of what was returned
    try:
        if processes.main:
            outcome = [(work(),)]
    finally:
        dist.broadcast_object_list(outcome, src=0, device=torch.device("cpu"))
    if outcome[0] is None:
        raise FailedElsewhere("the main process failed")
    result: T = outcome[0][0]
    return result


def on_all(processes: Processes, work: Callable[[], T]) -> T:
    """What ``work()`` returns here, once it has succeeded on all.

    Raises:
        FailedElsewhere: ``work`` raised on another process; on the first of those that it did, what it raised.
    """
    if processes.alone:
        return work()
    error: Exception | None = None
    try:
        result = work()
    except Exception as raised:
        error = raised
    failed = [
        failure for failure in gathered(processes, None if error is None else processes.rank) if failure is not None
    ]
    if error is not None and failed[0] == processes.rank:
        raise error
    if failed:
        raise FailedElsewhere(f"process {failed[0]} failed") from error
    return result


def gathered(processes: Processes, value: T) -> list[T]:
    """Each process's ``value``, by rank, on all of them."""
    if processes.alone:
        return [value]
    values: list[Any] = [None] * processes.world_size
    dist.all_gather_object(values, value)
    return values


def gathered_on_main(processes: Processes, value: T) -> list[T]:
    """Each process's ``value``, by rank, on the main one; elsewhere nothing."""
    if processes.alone:
        return [value]
    values: list[Any] | None = [None] * processes.world_size if processes.main else None
    dist.gather_object(value, values, dst=0)
    return values or []
