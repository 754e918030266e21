"""What both loaders do on a CPU to the window that an image was cut down to: resize it and distort its colours."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastadv.data.preprocessing import Draws
from fastadv.extras import require


def empty_pixels(count: int, channels: int, size: int) -> Tensor:
    """[m, C, size, size] uint8 in channels_last order, to be filled by :func:`put`."""
    return torch.empty((count, size, size, channels), dtype=torch.uint8).permute(0, 3, 1, 2)


def put(pixels: Tensor, row: int, window: Tensor, draws: Draws | None) -> None:
    """Write one image of a batch, by this thread alone: others of the same pool write their own.

    Args:
        pixels: [m, C, size, size] of :func:`empty_pixels`.
        row: of the image.
        window: [C, H, W] uint8.
        draws: of the batch, whose colours are taken; None for evaluation.
    """
    made = resized(window, pixels.shape[2])  # [size, size, C]
    if draws is not None and draws.colours is not None:
        made = coloured(made, draws.colours[row])
    pixels.permute(0, 2, 3, 1).numpy()[row] = made  # torch's own copy would wake threads for it


def resized(window: Tensor, size: int) -> NDArray[np.uint8]:  # [C, H, W] -> [size, size, C]
    """Bilinear with antialiasing, whatever the aspect."""
    resize = require("torchvision.transforms.v2.functional", extra="train").resize
    made: NDArray[np.uint8] = resize(window, [size, size], antialias=True).permute(1, 2, 0).numpy()
    return made


def coloured(image: NDArray[np.uint8], matrix: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The matrix [3, 4] times (red, green, blue, 1) of an image [H, W, 3], rounded and kept in 0..255."""
    channels = (image[..., c, None] * matrix[:, c] for c in range(3))  # [H, W, 3] float32 each
    mixed = sum(channels, start=matrix[:, 3])
    return np.rint(mixed).clip(0, 255).astype(np.uint8)
