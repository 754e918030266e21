"""Windows of the Square attack: how large they are, and where they lie."""

from __future__ import annotations

import math
from bisect import bisect_left

import torch
from torch import Tensor

_HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # of 10,000 queries: windows are half as large after each


def window_side(p_init: float, query: int, queries: int, height: int, width: int) -> int:
    """Return the side of the windows of a query.

    A window has a share of the image's pixels that begins with p_init, and is halved on a schedule for 10,000 queries,
    which is stretched to the number of queries that there are.

    Args:
        p_init: in (0, 1].
        query: counted from 1; the start is query 0.
        queries: their number.
        height, width: of the image, which holds every window.
    """
    halvings = bisect_left(_HALVINGS, int((query - 1) / queries * 10_000))
    side = round(math.sqrt(p_init / 2**halvings * height * width))
    return min(max(side, 1), height, width)


class Windows:
    """A square window in each of n images.

    Args:
        corners: [n, 2], uniform on [-1, 1]: the first row and the first column, of those that are possible.
        side: of all windows.
        height, width: of the images.
    """

    def __init__(self, corners: Tensor, side: int, height: int, width: int) -> None:
        along = torch.arange(side, device=corners.device)
        self._side = side
        self._top = _first(corners[:, 0], height - side)  # [n, 1, 1]
        self._left = _first(corners[:, 1], width - side)  # [n, 1, 1]
        self._rows = self._top + along[:, None]  # [n, side, 1]
        self._columns = self._left + along  # [n, 1, side]
        self._pixels = (self._rows * width + self._columns).flatten(1)[:, None]  # [n, 1, side * side]

    def of(self, images: Tensor) -> Tensor:
        """Return the values of images [n, C, H * W] in the windows: [n, C, side * side]."""
        return images.gather(2, self._pixels.expand(-1, images.shape[1], -1))

    def fill_(self, images: Tensor, values: Tensor) -> None:
        """Write values [n, C, side * side] to the windows of images [n, C, H * W]."""
        images.scatter_(2, self._pixels.expand(-1, images.shape[1], -1), values)

    def outside(self, other: Windows) -> Tensor:
        """Return which pixels of these windows do not lie in the other ones: [n, 1, side * side] bool."""
        rows = (self._rows >= other._top) & (self._rows < other._top + other._side)  # [n, side, 1]
        columns = (self._columns >= other._left) & (self._columns < other._left + other._side)  # [n, 1, side]
        return ~(rows & columns).flatten(1)[:, None]


def _first(drawn: Tensor, last: int) -> Tensor:
    """Return which of the rows or columns 0 to ``last`` numbers [n] on [-1, 1] choose: [n, 1, 1] int64."""
    return ((drawn + 1) / 2 * (last + 1)).to(torch.int64).clamp_(max=last)[:, None, None]  # where 1 was drawn, too
