"""Counts kernels that ran on a GPU, launches by the host, and waits of the host for the device."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

# Calls of the CUDA runtime and, for code of torch.compile, of the driver. A graph is one launch of all its kernels.
_LAUNCH = re.compile(r"(cuda|cu)(Launch(Cooperative)?Kernel|GraphLaunch)")
_WAIT = re.compile(r"(cuda|cu)(Stream|Event)Synchronize")
_CALLS = ("cuda_runtime", "cuda_driver")


@dataclass(frozen=True)
class Launches:
    """Counts for one call.

    Args:
        kernels: names of the kernels that ran, including those of graphs, but not copies.
        host: launches by the host, each of a kernel or a whole graph.
        waits: waits of the host for the device.
    """

    kernels: list[str]
    host: int
    waits: int


def launches(work: Callable[[], object]) -> Launches:
    """Run ``work`` once under PyTorch's profiler, on a GPU.

    Raises:
        RuntimeError: if the profiler saw no kernel: it does not work here, or the work does not use a GPU.
    """
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        work()
        torch.cuda.synchronize()
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(trace))
        found = launches_in(trace)
    if not found.kernels:
        raise RuntimeError("PyTorch's profiler saw no kernel run")
    return found


def launches_in(trace: Path) -> Launches:
    """The counts in a trace of the profiler."""
    events = json.loads(trace.read_text())["traceEvents"]
    calls = [event["name"] for event in events if event.get("cat") in _CALLS]
    return Launches(
        kernels=[event["name"] for event in events if event.get("cat") == "kernel"],
        host=sum(bool(_LAUNCH.match(name)) for name in calls),
        waits=sum(bool(_WAIT.match(name)) for name in calls),
    )
