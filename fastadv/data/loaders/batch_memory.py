"""Memory for the images of a batch."""

from __future__ import annotations

import mmap
from contextlib import suppress

import torch
from torch import Tensor

_TAKEN_ANEW = 32 << 20  # bytes


def empty_images(count: int, channels: int, size: int, device: torch.device) -> Tensor:
    """[m, C, size, size] float32 in channels_last order, not initialised.

    On the CPU, what is larger than 32 MB, a batch of 32 photographs, goes back to Linux when it is freed, and the next
    batch takes new pages: a fault for each costs more than the values that are written to it. Large pages are asked
    for, of which there are few.
    """
    shape = count, size, size, channels
    numbers = count * size * size * channels
    if device.type != "cpu" or 4 * numbers <= _TAKEN_ANEW or not hasattr(mmap, "MADV_HUGEPAGE"):
        return torch.empty(shape, device=device).permute(0, 3, 1, 2)
    memory = mmap.mmap(-1, 4 * numbers, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with suppress(OSError):  # a kernel that has none
        memory.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(memory, dtype=torch.float32).view(shape).permute(0, 3, 1, 2)
