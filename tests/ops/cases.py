"""Shared by the operator tests: dtypes, awkward sizes, spaces, and operands of steps."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fastadv import PixelSpace

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
SPACES = {
    "raw": PixelSpace.raw(),
    "unit": PixelSpace.unit(),
    "symmetric": PixelSpace.symmetric(),
    "imagenet": PixelSpace.imagenet(),
}
# Empty, single, prime, odd rows that no vector divides, and the paper's 3 x 299 x 299.
SHAPES = [(0, 3, 4, 4), (1, 3, 1, 1), (2, 3, 1, 43), (33, 3, 7, 5), (2, 3, 64, 65), (1, 3, 299, 299), (2, 3, 299, 299)]


@dataclass
class Operands:
    """Return a step's tensors: adv inside or outside the eps ball, clean and adv in the range, any gradient."""

    adv: Tensor  # [N, C, ...]
    clean: Tensor  # [N, C, ...]
    grad: Tensor  # [N, C, ...]


def operands(
    shape: tuple[int, ...],
    dtype: torch.dtype = torch.float32,
    space: PixelSpace | None = None,
    channels_last: bool = False,
    unaligned: bool = False,
    seed: int = 0,
) -> Operands:
    space = PixelSpace.raw() if space is None else space
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, shape, generator=generator)
    moved = (pixels + torch.randint(-20, 21, shape, generator=generator)).clamp(0, 255)
    grad = torch.randn(shape, generator=generator)
    grad[torch.rand(shape, generator=generator) < 0.05] = 0.0
    tensors = [space.from_pixels(moved, dtype), space.from_pixels(pixels, dtype), grad.to(dtype)]
    if channels_last:
        tensors = [tensor.contiguous(memory_format=torch.channels_last) for tensor in tensors]
    if unaligned:
        tensors = [at_odd_offset(tensor, offset) for tensor, offset in zip(tensors, (1, 3, 2), strict=True)]
    return Operands(*tensors)


def at_odd_offset(tensor: Tensor, offset: int) -> Tensor:
    """Return the same values and strides, `offset` elements into a storage."""
    room = torch.empty(tensor.numel() + offset, dtype=tensor.dtype, device=tensor.device)
    return room.as_strided(tensor.shape, tensor.stride(), offset).copy_(tensor)
