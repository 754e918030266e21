"""Run a function in several processes that form a group, as torchrun would start them, or a command in one.

They are forked from a server that has imported PyTorch already: a group is there in a fraction of a second.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import socket
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch

from fastadv.cli import main
from fastadv.distributed import Processes, process_group

_SECONDS = 500

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(
    [
        *("tests.train.runs", "jsonargparse", "rich.progress", "safetensors.torch", "sklearn.datasets"),
        *("sklearn.model_selection", "timm.optim", "timm.utils", "torch.utils.tensorboard", "yaml"),
        *("PIL.Image", "torchvision.transforms.v2.functional", "nvidia.dali.fn"),
    ]
)


@dataclass(frozen=True)
class Raised:
    """An exception that a process raised."""

    kind: str
    text: str
    trace: str


def together(world_size: int, function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """Run ``function(processes, *arguments)`` in each process; results by rank, :class:`Raised` if it raised."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    call = pickle.dumps((function, arguments))
    pipes = [_context.Pipe(duplex=False) for _ in range(world_size)]
    members = [
        _context.Process(target=_member, args=(rank, world_size, port, sender, call), daemon=True)
        for rank, (_, sender) in enumerate(pipes)
    ]
    for member, (_, sender) in zip(members, pipes, strict=True):
        member.start()
        sender.close()
    try:
        return [_received(receiver) for receiver, _ in pipes]
    finally:
        for member in members:
            member.kill()
            member.join()


def command(argv: list[str], said: Path) -> BaseProcess:
    """Run ``fastadv ARGV`` in a process that leads a session, like torchrun's; append its output to a file."""
    process = _context.Process(target=_command, args=(argv, said))
    process.start()
    return process


def _command(argv: list[str], said: Path) -> None:
    os.setsid()
    with said.open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    torch.set_num_threads(1)
    sys.exit(main(argv))


def succeeded(results: list[Any]) -> list[Any]:
    """The results; fails if a process raised."""
    for rank, result in enumerate(results):
        if isinstance(result, Raised):
            raise AssertionError(f"process {rank} raised {result.kind}: {result.text}\n{result.trace}")
    return results


def _received(receiver: Connection) -> Any:
    if not receiver.poll(_SECONDS):
        raise TimeoutError(f"a process has not answered for {_SECONDS} seconds")
    try:
        return pickle.loads(receiver.recv_bytes())
    except EOFError:
        return Raised("Died", "the process ended without an answer", "")


def _member(rank: int, world_size: int, port: int, sender: Connection, call: bytes) -> None:
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(world_size), "LOCAL_RANK": str(rank)}
    os.environ |= {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    try:
        function, arguments = pickle.loads(call)
        with process_group() as processes:
            assert processes == Processes(rank=rank, world_size=world_size, local_rank=rank)
            answer = function(processes, *arguments)
    except Exception as error:
        answer = Raised(type(error).__name__, str(error), traceback.format_exc())
    sender.send_bytes(pickle.dumps(answer))  # plainly: a tensor in shared memory would end with the process
