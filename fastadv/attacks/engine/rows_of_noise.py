"""Random numbers for some of the images of a batch, the same as if they were drawn for all of it."""

from __future__ import annotations

from torch import Tensor

from fastadv import ops
from fastadv.pixels import PixelSpace

_UNCLIPPED = PixelSpace(0.0, 1.0, lower=-8.0, upper=8.0)  # wider than standard noise of any kind


def rows_of_noise(like: Tensor, kind: str, seed: int | Tensor, offset: int, index: Tensor | None) -> Tensor:
    """Return standard noise for each row of ``like`` [n, ...], of its shape and dtype.

    Args:
        like: a tensor of the shape, dtype and device that the noise should have.
        kind: of :func:`fastadv.ops.noise_step_`.
        seed, offset: of the batch.
        index: [n] int64, the rows' places in the batch; None for 0 to n - 1.
    """
    rows = len(like) if index is None else int(index.max()) + 1
    zeros = like.new_zeros((rows, *like.shape[1:]))
    noise = ops.noise_step_(zeros, zeros, 1.0, kind, seed, offset, _UNCLIPPED)
    return noise if index is None else noise[index]
