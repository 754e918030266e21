"""Allocate memory for the images of a batch."""

from __future__ import annotations

import mmap
from contextlib import suppress

import torch
from torch import Tensor

_MAPPED_ABOVE = 32 << 20  # bytes


def empty_images(count: int, channels: int, size: int, device: torch.device) -> Tensor:
    """Allocate [m, C, size, size] float32 in channels_last order, not initialised.

    On the CPU, blocks above 32 MB (32 photographs) return to Linux when they are freed, and the next batch takes new
    pages: page faults then cost more than writing the values. Requesting huge pages makes faults rare.
    """
    shape = count, size, size, channels
    numbers = count * size * size * channels
    if device.type != "cpu" or 4 * numbers <= _MAPPED_ABOVE or not hasattr(mmap, "MADV_HUGEPAGE"):
        return torch.empty(shape, device=device).permute(0, 3, 1, 2)
    memory = mmap.mmap(-1, 4 * numbers, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with suppress(OSError):  # the kernel may not support them
        memory.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(memory, dtype=torch.float32).view(shape).permute(0, 3, 1, 2)
