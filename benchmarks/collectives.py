"""Counts what processes send each other: by PyTorch's profiler, which sees the collectives of every thread."""

from __future__ import annotations

import math
from collections import Counter

from torch.profiler import ProfilerActivity, profile

BACKENDS = ("gloo:", "nccl:")


class Collectives(profile):
    """Within the block, counts collectives: by the name of each, and how many numbers it carries."""

    def __init__(self) -> None:
        super().__init__(activities=[ProfilerActivity.CPU], record_shapes=True)

    @property
    def counts(self) -> Counter[tuple[str, int]]:
        """How often each was called, once the block is over."""
        found = [event for event in self.events() if event.name.startswith(BACKENDS)]
        return Counter((event.name, sum(math.prod(shape) for shape in event.input_shapes)) for event in found)
