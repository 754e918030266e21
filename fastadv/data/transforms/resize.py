"""Resize a crop and distort its colours on the CPU, for both loaders."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fastadv.data.transforms.preprocessing import Draws, InterpolationName
from fastadv.utils.optional_deps import require


def resize_and_colour(
    window: Tensor, size: int, draws: Draws | None, row: int, interpolation: InterpolationName = "bilinear"
) -> NDArray[np.uint8]:  # [size, size, C]
    """Preprocess one image of a batch except for mirroring, in this thread alone.

    Args:
        window: [C, H, W] uint8.
        size: height and width of the result in pixels.
        draws: draws of the batch, for its colours; None in evaluation.
        row: row of the image in the batch.
        interpolation: bilinear or bicubic.
    """
    image = resized(window, size, interpolation)
    return image if draws is None or draws.colours is None else coloured(image, draws.colours[row])


def resized(
    window: Tensor, size: int, interpolation: InterpolationName = "bilinear"
) -> NDArray[np.uint8]:  # [C, H, W] -> [size, size, C]
    """Resize with antialiasing, ignoring the aspect ratio."""
    functional = require("torchvision.transforms.v2.functional", extra="train")
    mode = functional.InterpolationMode(interpolation)
    image: NDArray[np.uint8] = functional.resize(window, [size, size], mode, antialias=True).permute(1, 2, 0).numpy()
    return image


def coloured(image: NDArray[np.uint8], matrix: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Multiply the matrix [3, 4] by (red, green, blue, 1) of an image [H, W, 3]; round and clip to 0..255."""
    mixed = sum((image[..., c, None] * matrix[:, c] for c in range(3)), start=matrix[:, 3])  # [H, W, 3]
    return np.rint(mixed).clip(0, 255).astype(np.uint8)
