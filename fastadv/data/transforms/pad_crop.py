"""Random crops of a batch of small images, and which are mirrored: draws that are made beforehand for all images."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def draw_shifts(count: int, padding: int, generator: torch.Generator) -> Tensor:
    """How far to move each of ``count`` images down and right, 0 to 2 * padding, all equally likely: [2, N]."""
    return torch.randint(2 * padding + 1, (2, count), generator=generator, device="cpu")


def draw_mirrored(count: int, generator: torch.Generator) -> Tensor:
    """Which of ``count`` images to mirror, each with probability 1/2: [N] bool."""
    return torch.randint(2, (count,), generator=generator, device="cpu").bool()


def shifted(images: Tensor, padding: int, shifts: Tensor) -> Tensor:
    """Pad each image with black on all sides and cut its own size out.

    Args:
        images: [N, C, H, W] uint8.
        padding: in pixels.
        shifts: [2, N], where the cuts begin in the padded images, from the top and from the left.
    """
    height, width = images.shape[2:]
    padded = F.pad(images, [padding] * 4)  # [N, C, H + 2p, W + 2p]
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # [N, C, 2p + 1, 2p + 1, H, W], a view
    top, left = shifts  # [N], [N]
    return windows[torch.arange(len(images), device=images.device), :, top, left]  # [N, C, H, W]
