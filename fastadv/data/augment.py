"""Random crops and flips of a batch of small images, drawn on the CPU so that every device gets the same ones."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def random_crop(images: Tensor, padding: int, generator: torch.Generator) -> Tensor:
    """Pad each image with black on all sides and cut its own size out at a random place.

    Args:
        images: [N, C, H, W] uint8.
        padding: in pixels; every shift of -padding..padding is equally likely, in each direction.
        generator: on the CPU.
    """
    count, _, height, width = images.shape
    top, left = torch.randint(2 * padding + 1, (2, count), generator=generator).to(images.device)  # [N], [N]
    padded = F.pad(images, [padding] * 4)  # [N, C, H + 2p, W + 2p]
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # [N, C, 2p + 1, 2p + 1, H, W], a view
    return windows[torch.arange(count, device=images.device), :, top, left]  # [N, C, H, W]


def random_flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror each image left to right with probability 1/2.

    Args:
        images: [N, C, H, W].
        generator: on the CPU.
    """
    mirrored = torch.randint(2, (len(images), 1, 1, 1), generator=generator).to(images.device)  # [N, 1, 1, 1]
    return torch.where(mirrored.bool(), images.flip(-1), images)
