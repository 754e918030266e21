"""The most memory that is allocated at a time, and what is left of it."""

from __future__ import annotations

import gc
from collections.abc import Callable
from itertools import accumulate

import torch
from torch.profiler import ProfilerActivity, profile


def peak(function: Callable[[], object], device: str) -> int:
    """Bytes that a call has allocated at its peak, above those before it: on a GPU by the caching allocator's count."""
    gc.collect()
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        function()
        return torch.cuda.max_memory_allocated() - before
    return max(accumulate(_on_cpu(function), initial=0))


def kept(function: Callable[[], object], device: str) -> int:
    """Bytes that a call leaves allocated: on a GPU in whole blocks, with those that captured graphs alone may use."""
    gc.collect()
    if device == "cuda":
        before = _reserved()
        function()
        return _reserved() - before
    return sum(_on_cpu(function))


def _reserved() -> int:
    """What the caching allocator holds for tensors that are there, and for graphs."""
    gc.collect()
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    return torch.cuda.memory_reserved()


def _on_cpu(function: Callable[[], object]) -> list[int]:
    """The bytes of each allocation during a call, and, below zero, of each release, in order."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        function()
        gc.collect()
    assert profiler.profiler is not None and profiler.profiler.kineto_results is not None
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    return [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
