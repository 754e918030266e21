"""PixelBox: the pixel range in the model's input, and distances in pixel values, as tensors that broadcast."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from fastadv.pixels import PixelSpace

_ORDERS = {"linf": torch.inf, "l2": 2.0}


class PixelBox(NamedTuple):
    """The range of images [N, C, ...] in their space; each tensor is a scalar or [C, 1, ...].

    Args:
        lower: the least input, in the images' dtype.
        upper: the largest one.
        std: pixel values in a unit of input, in float32 or float64.
    """

    lower: Tensor
    upper: Tensor
    std: Tensor

    @classmethod
    def of(cls, space: PixelSpace, images: Tensor) -> PixelBox:  # [N, C, ...]
        """Return the box of a space that describes the images' channels."""
        shape = () if space.channels == 1 else (-1, *[1] * (images.dim() - 2))
        wide = torch.promote_types(images.dtype, torch.float32)

        def constant(values: tuple[float, ...], dtype: torch.dtype) -> Tensor:
            return torch.tensor(values, dtype=torch.float64, device="cpu").view(shape).to(images.device, dtype)

        lower, upper = space.bounds(images.dtype)
        return cls(constant(lower, images.dtype), constant(upper, images.dtype), constant(space.std, wide))

    def clip(self, images: Tensor) -> Tensor:
        """Return images [n, C, ...] in the range, in its dtype."""
        return images.clamp(self.lower, self.upper).to(self.lower.dtype)

    def distance(self, images: Tensor, clean: Tensor, norm: str) -> Tensor:
        """Return the distance of each image [n, C, ...] to its clean one, in pixel values: [n], float32 or float64."""
        return self.length(images.to(self.std.dtype) - clean.to(self.std.dtype), norm)

    def length(self, moves: Tensor, norm: str) -> Tensor:
        """Return the length of each move [n, C, ...], a difference of images, in pixel values: [n]."""
        lengths: Tensor = torch.linalg.vector_norm((moves * self.std).flatten(1), _ORDERS[norm], dim=1)
        return lengths
