"""Training in several processes, started by torchrun, each with a copy of the network.

They exchange gradients through DistributedDataParallel, 48 bytes of metrics per step (see ``train/step_metrics.py``),
24 bytes per check of the sentinel, and small objects through the functions below when a run begins, is saved or ends.
"""

from __future__ import annotations

import inspect
import re
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import torch
from torch import distributed as dist
from torch import nn
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from fastadv.utils.launch import ALONE, FailedElsewhere, Processes, ProcessLost, launched
from fastadv.utils.launch import launch_name as launch_name

# Must exceed the time that other processes take to evaluate and save. If a process ends early, torchrun ends the others
# without waiting for this.
_TIMEOUT = timedelta(minutes=10)
_OF_GLOO = re.compile(r"\[\S*gloo/\S+\] ")  # gloo raises plain RuntimeErrors whose text begins with a line of its code

T = TypeVar("T")


# --- groups ----------------------------------------------------------------------------------------------------------


@contextmanager
def process_group() -> Iterator[Processes]:
    """Within the block, torchrun's processes form a process group; a single process needs none.

    Tensors on the CPU use gloo, tensors on a GPU use NCCL. After an error in the block the group is not destroyed:
    that could wait for processes that wait for this one.

    Raises:
        ProcessLost: if another process is missing, also in a collective within the block.
    """
    processes = launched()
    if processes.alone:
        yield processes
        return
    try:
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo",
            store=_fresh_store(processes),
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


def _fresh_store(processes: Processes) -> dist.Store:
    """Return a part of torchrun's store under a prefix that only these processes know.

    When torchrun restarts processes it keeps its store, with the addresses of dead processes: under the usual prefix
    the new ones would try to connect to them. So each process publishes a random token, and the main process answers
    under that token with a random prefix, until all have confirmed it. Answers to tokens of dead processes are never
    read.
    """
    store, _, _ = next(iter(rendezvous("env://", timeout=_TIMEOUT)))
    token, hello = uuid.uuid4().hex, "fastadv/hello/{}".format
    if not processes.main:
        store.set(hello(processes.rank), token)
        prefix = store.get(token).decode()  # waits
        store.set(f"{prefix}/{processes.rank}", "")
        return dist.PrefixStore(prefix, store)
    deadline = time.monotonic() + _TIMEOUT.total_seconds()
    absent = list(range(1, processes.world_size))
    while absent:
        if time.monotonic() > deadline:
            raise TimeoutError(f"after {_TIMEOUT}, processes {absent} of {processes.world_size} are missing")
        for rank in absent:
            if store.check([hello(rank)]):
                store.set(store.get(hello(rank)).decode(), token)
        time.sleep(0.01)
        absent = [rank for rank in absent if not store.check([f"{token}/{rank}"])]
    return dist.PrefixStore(token, store)


def current() -> Processes:
    """Return this process within the program's process group, however that was created; alone if there is none."""
    if not (dist.is_available() and dist.is_initialized()):
        return ALONE
    return Processes(rank=dist.get_rank(), world_size=dist.get_world_size(), local_rank=launched().local_rank)


def device_name(name: str, processes: Processes) -> str:
    """Return the device of a process for the configured ``name``; several processes each use their own GPU.

    Raises:
        ValueError: if one particular GPU is configured for several processes.
    """
    if processes.alone or name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return name
    if name not in ("auto", "cuda"):
        raise ValueError(f"device must be auto, cuda or cpu for {processes.world_size} processes, got {name!r}")
    return f"cuda:{processes.local_rank}"


def seed_draws(seed: int, processes: Processes) -> None:
    """Seed dropout differently in each process; call it after all have drawn the same initial weights."""
    if not processes.main:
        mixed = np.random.SeedSequence(seed, spawn_key=(processes.rank,)).generate_state(1)
        torch.manual_seed(int(mixed[0]))


def data_parallel(model: nn.Module, device: torch.device, *, static_graph: bool) -> DistributedDataParallel:
    """Wrap the model so that the backward pass averages gradients over all processes.

    Buffers are not synchronised: each process has its own running statistics until :func:`average_buffers`.

    Args:
        model: the same on every process, on ``device``.
        device: this process's.
        static_graph: every iteration uses the same parameters. Does not work with ``no_sync()`` or ``torch.compile``.
    """
    options: dict[str, Any] = {"gradient_as_bucket_view": True, "static_graph": static_graph}
    # The option's name depends on the PyTorch version.
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


# --- collective calls ------------------------------------------------------------------------------------------------


def on_main(processes: Processes, work: Callable[[], T]) -> T:
    """Run ``work()`` on the main process and return its result on all processes.

    Raises:
        FailedElsewhere: if ``work`` raised; the main process raises the error itself.
    """
    if processes.alone:
        return work()
    outcome: list[Any] = [None]  # None after an error, otherwise a tuple with the result
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
    """Run ``work()`` on all processes and return this one's result once all have succeeded.

    Raises:
        FailedElsewhere: if ``work`` raised on a process; the first such process raises the error itself.
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
    """Return every process's ``value``, ordered by rank, on all processes."""
    if processes.alone:
        return [value]
    values: list[Any] = [None] * processes.world_size
    dist.all_gather_object(values, value)
    return values


def gathered_on_main(processes: Processes, value: T) -> list[T]:
    """Return every process's ``value``, ordered by rank, on the main process; an empty list on the others."""
    if processes.alone:
        return [value]
    values: list[Any] | None = [None] * processes.world_size if processes.main else None
    dist.gather_object(value, values, dst=0)
    return values or []
