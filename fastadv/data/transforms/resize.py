"""What both loaders do on a CPU to the window that an image was cut down to: resize it and distort its colours."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fastadv.data.transforms.preprocessing import Draws, InterpolationName
from fastadv.utils.optional_deps import require


def prepared(
    window: Tensor, size: int, draws: Draws | None, row: int, interpolation: InterpolationName = "bilinear"
) -> NDArray[np.uint8]:  # [size, size, C]
    """An image of a batch, but for its mirroring; made by this thread alone, as is all that NumPy does.

    Args:
        window: [C, H, W] uint8.
        size: side of the result in pixels.
        draws: of the batch, whose colours are taken; None for evaluation.
        row: of the image in the batch.
        interpolation: of the pixels.
    """
    image = resized(window, size, interpolation)
    return image if draws is None or draws.colours is None else coloured(image, draws.colours[row])


def resized(
    window: Tensor, size: int, interpolation: InterpolationName = "bilinear"
) -> NDArray[np.uint8]:  # [C, H, W] -> [size, size, C]
    """Resized with antialiasing, whatever the aspect."""
    functional = require("torchvision.transforms.v2.functional", extra="train")
    mode = functional.InterpolationMode(interpolation)
    image: NDArray[np.uint8] = functional.resize(window, [size, size], mode, antialias=True).permute(1, 2, 0).numpy()
    return image


def coloured(image: NDArray[np.uint8], matrix: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The matrix [3, 4] times (red, green, blue, 1) of an image [H, W, 3], rounded and kept in 0..255."""
    mixed = sum((image[..., c, None] * matrix[:, c] for c in range(3)), start=matrix[:, 3])  # [H, W, 3]
    return np.rint(mixed).clip(0, 255).astype(np.uint8)
