"""What the Square attack tries in the Linf ball: perturbations of eps or -eps, constant in a window and channel."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fastadv.attacks.engine.pixel_box import PixelBox
from fastadv.attacks.engine.square_windows import Windows


@dataclass(frozen=True)
class LinfSquares:
    """Algorithm 2 of Andriushchenko et al. (2020), for images [n, C, H * W].

    Args:
        box: the range of such images.
        shape: (C, H, W).
    """

    box: PixelBox
    shape: tuple[int, int, int]

    @property
    def numbers_to_start(self) -> tuple[int, ...]:
        """Shape of an image's random numbers for :meth:`start`."""
        channels, _, width = self.shape
        return channels, 1, width

    @property
    def numbers(self) -> int:
        """How many random numbers an image needs for :meth:`propose`."""
        return 2 + self.shape[0]

    def start(self, clean: Tensor, eps: Tensor, numbers: Tensor) -> Tensor:
        """Return images with vertical stripes, of one pixel each: [n, C, H * W].

        Args:
            clean: [n, C, H * W].
            eps: [n, 1, 1], in pixel values.
            numbers: [n, C, 1, W], uniform on [-1, 1].
        """
        rises = (numbers > 0).expand(-1, *self.shape).flatten(2)  # [n, C, H * W]
        return self._moved(clean, eps, rises)

    def propose(self, clean: Tensor, best: Tensor, eps: Tensor, side: int, numbers: Tensor) -> Tensor:
        """Return the best images so far [n, C, H * W], each with one window changed.

        A window that would stay as it is takes the opposite perturbation, so that no query is wasted.

        Args:
            clean: [n, C, H * W].
            best: [n, C, H * W].
            eps: [n, 1, 1], in pixel values.
            side: of the windows.
            numbers: [n, 2 + C], uniform on [-1, 1].
        """
        windows = Windows(numbers[:, :2], side, *self.shape[1:])
        there, rises = windows.of(clean), numbers[:, 2:, None] > 0  # [n, C, side * side], [n, C, 1]
        changed = self._moved(there, eps, rises)
        same = (changed == windows.of(best)).flatten(1).all(1)[:, None, None]  # [n, 1, 1]
        candidate = best.clone()
        windows.fill_(candidate, torch.where(same, self._moved(there, eps, ~rises), changed))
        return candidate

    def _moved(self, clean: Tensor, eps: Tensor, rises: Tensor) -> Tensor:
        """Return pixels [n, C, m] moved by eps, or by -eps where they do not rise."""
        move = eps / self.box.std  # [n, 1 or C, 1]
        return self.box.clip(clean + torch.where(rises, move, -move))
