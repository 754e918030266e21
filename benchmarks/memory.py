"""Peak memory of a call, and memory that it keeps."""

from __future__ import annotations

import gc
from collections.abc import Callable
from itertools import accumulate

import torch
from torch.profiler import ProfilerActivity, profile


def peak(function: Callable[[], object], device: str) -> int:
    """Peak bytes allocated by a call, in addition to those before it; on a GPU, as counted by the caching allocator."""
    gc.collect()
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        function()
        return torch.cuda.max_memory_allocated() - before
    return max(accumulate(_on_cpu(function), initial=0))


def kept(function: Callable[[], object], device: str) -> int:
    """Bytes that a call leaves allocated; on a GPU in whole blocks, including those reserved for captured graphs."""
    gc.collect()
    if device == "cuda":
        before = _reserved()
        function()
        return _reserved() - before
    return sum(_on_cpu(function))


def _reserved() -> int:
    """Bytes that the caching allocator holds for existing tensors and for graphs."""
    gc.collect()
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    return torch.cuda.memory_reserved()


def _on_cpu(function: Callable[[], object]) -> list[int]:
    """Bytes of each allocation during a call, negative for releases, in order."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        function()
        gc.collect()
    assert profiler.profiler is not None and profiler.profiler.kineto_results is not None
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    return [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
