"""Counts communication between processes with PyTorch's profiler, which sees the collectives of all threads."""

from __future__ import annotations

import math
from collections import Counter

from torch.profiler import ProfilerActivity, profile

BACKENDS = ("gloo:", "nccl:")


class Collectives(profile):
    """Counts collectives within the block, by name and by how many numbers they carry."""

    def __init__(self) -> None:
        super().__init__(activities=[ProfilerActivity.CPU], record_shapes=True)

    @property
    def counts(self) -> Counter[tuple[str, int]]:
        """Number of calls of each, available after the block."""
        found = [event for event in self.events() if event.name.startswith(BACKENDS)]
        return Counter((event.name, sum(math.prod(shape) for shape in event.input_shapes)) for event in found)
