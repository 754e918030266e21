"""Random crops and mirroring of small images in memory, drawn in advance for all images."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def draw_shifts(count: int, padding: int, generator: torch.Generator) -> Tensor:
    """Draw the offset of each of ``count`` crops from the top and the left, uniform in 0..2 * padding: [2, N]."""
    return torch.randint(2 * padding + 1, (2, count), generator=generator, device="cpu")


def draw_mirrored(count: int, generator: torch.Generator) -> Tensor:
    """Draw which of ``count`` images to mirror, each with probability 1/2: [N] bool."""
    return torch.randint(2, (count,), generator=generator, device="cpu").bool()


def pad_and_crop(images: Tensor, padding: int, shifts: Tensor) -> Tensor:
    """Pad each image with black on all sides and crop it to its original size.

    Args:
        images: [N, C, H, W] uint8.
        padding: in pixels.
        shifts: [2, N], offsets of the crops in the padded images, from the top and the left.
    """
    height, width = images.shape[2:]
    padded = F.pad(images, [padding] * 4)  # [N, C, H + 2p, W + 2p]
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # [N, C, 2p + 1, 2p + 1, H, W], a view
    top, left = shifts  # [N], [N]
    return windows[torch.arange(len(images), device=images.device), :, top, left]  # [N, C, H, W]
