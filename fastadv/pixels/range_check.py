"""Checks that images lie in the pixel range of their space."""

from __future__ import annotations

import math
import warnings
from typing import Protocol

import torch
from torch import Tensor

from fastadv.utils.stacklevel import user_stacklevel

# Share of the range. Bicubic and Lanczos interpolation overshoot by less, a wrong normalisation mostly by more.
OVERSHOOT = 0.25
_DARK = 0.25  # share of the range: images without a brighter pixel are probably normalised differently
_ROUNDING = 0.01 / 255  # share of the range, for the arithmetic that produced the images


class Space(Protocol):
    """The part of :class:`fastadv.PixelSpace` that the check uses; PixelSpace itself imports this module."""

    @property
    def mean(self) -> tuple[float, ...]: ...
    @property
    def std(self) -> tuple[float, ...]: ...
    @property
    def lower(self) -> float: ...
    @property
    def upper(self) -> float: ...
    @property
    def uniform(self) -> bool: ...
    def bounds(self, dtype: torch.dtype) -> tuple[tuple[float, ...], tuple[float, ...]]: ...


def channel_extremes(images: Tensor, space: Space) -> Tensor:
    """Return the smallest and the largest input of each channel, [2, C]; [2, 1] if all have the same constants.

    One pass over images [N, C, ...], N > 0, without waiting for their device.
    """
    if space.uniform:
        # In memory order: aminmax would copy channels_last images first.
        dense = images if images.is_contiguous() else images.movedim(1, -1)  # [N, C, ...] or [N, ..., C]
        return torch.stack(dense.aminmax())[:, None]
    if images.is_contiguous():
        others = [dim for dim in range(images.dim()) if dim != 1]
        return torch.stack((images.amin(others), images.amax(others)))
    return torch.stack([torch.stack(channel.aminmax()) for channel in images.unbind(1)], dim=1)


def check_extremes(ends: Tensor, dtype: torch.dtype, space: Space, whose: str = "images") -> None:
    """Refuse images outside the pixel range, given their smallest and largest inputs.

    Args:
        ends: the images' :func:`channel_extremes` [2, C or 1], on the CPU.
        dtype: of the images.
        space: the space that they should lie in.
        whose: what to call the images in messages.

    Raises:
        ValueError: if they are not finite, or lie outside the range by more than rounding.
    """
    low, high = pixel_extremes(ends, space)
    if not math.isfinite(high - low):
        raise ValueError(f"{whose} hold values that are not finite: as pixels they span [{low:g}, {high:g}]")
    excess = max(space.lower - low, high - space.upper)
    if excess > rounding_slack(space, dtype):
        raise ValueError(
            f"{whose} are outside the pixel range [{space.lower:g}, {space.upper:g}] of {space}: as pixels they span "
            f"[{low:.6g}, {high:.6g}], {excess:.3g} beyond it. {_advice(excess, high, space, dtype)}"
        )


def pixel_extremes(ends: Tensor, space: Space) -> tuple[float, float]:  # [2, C or 1]
    """Return the smallest and the largest pixel value of all channels; NaN if there is one."""
    constants = [values[: ends.shape[1]] for values in (space.mean, space.std)]
    mean, std = torch.tensor(constants, dtype=torch.float64, device="cpu")  # [C or 1] each
    low, high = ends.to(torch.float64) * std + mean  # [C or 1] each
    return low.min().item(), high.max().item()


def rounding_slack(space: Space, dtype: torch.dtype) -> float:
    """Return how far beyond the range rounding can lead, in pixel values."""
    bounds = space.bounds(dtype)
    largest = max(abs(bound) * std for side in bounds for bound, std in zip(side, space.std, strict=True))
    return _ROUNDING * (space.upper - space.lower) + torch.finfo(dtype).eps * largest


def _advice(excess: float, high: float, space: Space, dtype: torch.dtype) -> str:
    normalised = (  # without its first letter, which may be a capital
        "ass the PixelSpace that matches how they were normalised: raw, unit, symmetric, imagenet, or "
        "normalized(mean, std) with the constants of your transform"
    )
    if excess > OVERSHOOT * (space.upper - space.lower) or high < space.lower + _DARK * (space.upper - space.lower):
        return f"P{normalised}"
    return f"Bicubic and Lanczos interpolation overshoot like this: {_clamp(space, dtype)}. Otherwise p{normalised}"


def _clamp(space: Space, dtype: torch.dtype) -> str:
    """Return advice on bringing images into the range."""
    if space.uniform:
        (lower, *_), (upper, *_) = space.bounds(dtype)
        return f"clamp the images by images.clamp_({lower:.9g}, {upper:.9g})"
    return (
        f"clamp the pixels before they are normalised, by pixels.clamp_({space.lower:g}, {space.upper:g}), or "
        "by clamp_(0, 1) on a [0, 1] scale"
    )


def warn_of_unit_scale(ends: Tensor, dtype: torch.dtype, space: Space) -> None:  # [2, C or 1], on the CPU
    """Warn if all images lie in [0, 1] and the space is wider: they were probably not normalised yet."""
    least, most = ends[0].min().item(), ends[1].max().item()
    lower, upper = space.bounds(dtype)
    if 0 <= least < most <= 1 and (min(lower) < 0 or max(upper) > 1):
        low, high = pixel_extremes(ends, space)
        warnings.warn(
            f"all images lie in [{least:.3g}, {most:.3g}], as if they were on a [0, 1] scale, which is "
            f"PixelSpace.unit(); in {space} that is only [{low:.6g}, {high:.6g}] of the pixel range "
            f"[{space.lower:g}, {space.upper:g}]",
            stacklevel=user_stacklevel(),
        )
