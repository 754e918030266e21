"""The device under test, and what is moved there."""

from __future__ import annotations

import os

import pytest
import torch
from torch import Tensor

DEVICE = torch.device(os.environ.get("FASTADV_TEST_DEVICE", "cuda"))
REHEARSAL = DEVICE.type == "cpu"
# An ImageNet batch of so many, for which a rehearsal takes smaller images.
SIDE = 33 if REHEARSAL else 299

needs_streams = pytest.mark.skipif(REHEARSAL, reason="a rehearsal on the CPU has no streams and graphs")
needs_two_gpus = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")


def moved(tensor: Tensor, device: torch.device = DEVICE) -> Tensor:
    """The tensor on the device: its strides, and as far behind an aligned address as it was."""
    offset = tensor.storage_offset()
    room = torch.empty(tensor.numel() + offset, dtype=tensor.dtype, device=device)
    return room.as_strided(tensor.shape, tensor.stride(), offset).copy_(tensor)
