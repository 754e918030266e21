"""What the Square attack tries in the L2 ball: a window gives its share of the perturbation to another one."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fastadv.attacks.engine.pixel_box import PixelBox
from fastadv.attacks.engine.square_windows import Windows


@dataclass(frozen=True)
class L2Squares:
    """Algorithm 3 of Andriushchenko et al. (2020), for images [n, C, H * W].

    Args:
        box: the range of such images.
        shape: (C, H, W).
    """

    box: PixelBox
    shape: tuple[int, int, int]

    @property
    def _tile(self) -> int:
        return max(1, min(self.shape[1:]) // 5)

    @property
    def numbers_to_start(self) -> tuple[int, ...]:
        """Shape of an image's random numbers for :meth:`start`."""
        channels, height, width = self.shape
        return channels + 1, height // self._tile, width // self._tile

    @property
    def numbers(self) -> int:
        """How many random numbers an image needs for :meth:`propose`."""
        return 5 + self.shape[0]

    def start(self, clean: Tensor, eps: Tensor, numbers: Tensor) -> Tensor:
        """Return images with bumps side by side, five across the shorter side: [n, C, H * W].

        Args:
            clean: [n, C, H * W].
            eps: [n, 1, 1], in pixel values.
            numbers: [n, C + 1, bumps in a column, bumps in a row], uniform on [-1, 1].
        """
        signs, turned = numbers[:, :-1].sign(), numbers[:, -1] > 0
        delta = _tiled(bumps(self._tile, self.box.std), signs, turned, self.shape)  # [n, C, H, W]
        return self._scaled(clean, eps, delta.flatten(2))

    def propose(self, clean: Tensor, best: Tensor, eps: Tensor, side: int, numbers: Tensor) -> Tensor:
        """Return images [n, C, H * W] that differ from the best ones in two windows, but for a factor.

        The second window becomes clean. The first becomes a bump on top of what it has, of the norm that both had
        together, and of what clipping to the pixel range has left of eps.

        Args:
            clean: [n, C, H * W].
            best: [n, C, H * W].
            eps: [n, 1, 1], in pixel values.
            side: of the windows; an odd number of at least 3 replaces it, if the image allows.
            numbers: [n, 5 + C], uniform on [-1, 1].
        """
        channels, height, width = self.shape
        side = min(max(side, 3) | 1, height, width)
        first = Windows(numbers[:, :2], side, height, width)
        second = Windows(numbers[:, 2:4], side, height, width)
        delta = (best.to(self.box.std.dtype) - clean.to(self.box.std.dtype)) * self.box.std  # [n, C, H * W]
        here, there = first.of(delta), second.of(delta)  # [n, C, side * side] each
        left = (eps**2 - delta.square().sum((1, 2), keepdim=True)).clamp_min(0) / channels  # [n, 1, 1]
        both = _squares(here) + _squares(there * second.outside(first))  # [n, C, 1]
        bump = bumps(side, delta).flatten(1)[(numbers[:, 4] > 0).to(torch.int64)][:, None]  # [n, 1, side * side]
        mixed = bump * numbers[:, 5:, None].sign() + _unit(here)  # [n, C, side * side]
        second.fill_(delta, torch.zeros_like(there))
        first.fill_(delta, _unit(mixed) * (left + both).sqrt())
        return self._scaled(clean, eps, delta)

    def _scaled(self, clean: Tensor, eps: Tensor, delta: Tensor) -> Tensor:
        """Return images whose perturbation is delta [n, C, H * W], in pixel values, scaled to the norm eps."""
        norm = delta.square().sum((1, 2), keepdim=True).sqrt_()  # [n, 1, 1]
        return self.box.clip(clean + delta / _positive(norm) * eps / self.box.std)


def bumps(side: int, like: Tensor) -> Tensor:
    """Return what fills a window: two halves of opposite signs, and the transpose: [2, side, side], of norm 1 each.

    At the distance d from its centre, in the maximum norm, a half has the value of 1 / (d + 1)^2 + 1 / (d + 2)^2 + ...,
    up to the term of its edge.
    """
    upper, lower = _half(side // 2, side), _half(side - side // 2, side)  # [side // 2, side], [the rest, side]
    bump = torch.cat((upper, -lower))  # [side, side]
    bump = (bump / bump.norm()).to(like.device, like.dtype)
    return torch.stack((bump, bump.t()))


def _half(height: int, width: int) -> Tensor:  # [height, width]
    rows, columns = (torch.arange(size, device="cpu") - size // 2 for size in (height, width))
    distance = torch.maximum(rows.abs()[:, None], columns.abs())  # [height, width]
    terms = torch.arange(1, max(height, width) // 2 + 2, dtype=torch.float64, device="cpu") ** -2
    values = terms.flip(0).cumsum(0).flip(0)[distance]  # [height, width]
    return values / values.norm() if height else values


def _tiled(pair: Tensor, signs: Tensor, turned: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """Return bumps [2, side, side] side by side in the middle of images: [n, *shape].

    Args:
        pair: a bump and its transpose.
        signs: [n, C, bumps in a column, bumps in a row], 1 or -1.
        turned: [n, bumps in a column, bumps in a row] bool.
        shape: (C, H, W).
    """
    side = pair.shape[1]
    each = pair[turned.to(torch.int64)][:, None]  # [n, 1, rows, columns, side, side]
    filled = (each * signs[..., None, None]).transpose(3, 4)  # [n, C, rows, side, columns, side]
    height, width = (count * side for count in signs.shape[2:])
    top, left = (shape[1] - height) // 2, (shape[2] - width) // 2
    result = pair.new_zeros((len(signs), *shape))
    result[:, :, top : top + height, left : left + width] = filled.reshape(*signs.shape[:2], height, width)
    return result


def _squares(values: Tensor) -> Tensor:
    """Return the sum of squares in each image and channel, [n, C, 1], of values [n, C, m]."""
    return values.square().sum(2, keepdim=True)


def _unit(values: Tensor) -> Tensor:
    """Return values [n, C, m] over their norm in each image and channel; zeros stay zeros."""
    return values / _positive(_squares(values).sqrt_())


def _positive(norms: Tensor) -> Tensor:
    return norms.clamp_min(torch.finfo(norms.dtype).tiny)
