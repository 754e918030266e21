"""Images outside the pixel range of their space: one rule, whichever batch they come in."""

from __future__ import annotations

import math
import warnings
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fastadv.utils import devices
from fastadv.utils.stacklevel import caller_level

if TYPE_CHECKING:
    from fastadv.pixels import PixelSpace

VALIDATE = ("first", "always", "never")  # which batches are looked at

# Of the range. Bicubic and Lanczos interpolation leave it by less, images of another normalisation mostly by more.
OVERSHOOT = 0.25
_ROUNDING = 0.01 / 255  # of the range, for the arithmetic that made the images


def ends_of(images: Tensor, space: PixelSpace) -> Tensor:
    """The smallest and the largest input of each channel, [2, C]; [2, 1] where all have the same constants.

    One pass over images [N, C, ...], N > 0, without a wait for their device.
    """
    if space.uniform:
        # In the order of memory: of channels_last images aminmax would make a copy first.
        dense = images if images.is_contiguous() else images.movedim(1, -1)  # [N, C, ...] or [N, ..., C]
        return torch.stack(dense.aminmax())[:, None]
    if images.is_contiguous():
        others = [dim for dim in range(images.dim()) if dim != 1]
        return torch.stack((images.amin(others), images.amax(others)))
    return torch.stack([torch.stack(channel.aminmax()) for channel in images.unbind(1)], dim=1)


def check_ends(ends: Tensor, dtype: torch.dtype, space: PixelSpace, whose: str = "images") -> None:
    """Refuse images by their :func:`ends_of`, which lie on the CPU.

    Args:
        ends: [2, C or 1].
        dtype: of the images.
        space: in which they should lie.
        whose: the ends are, for messages.

    Raises:
        ValueError: they are not finite, or lie outside the pixel range by more than rounding.
    """
    low, high = _in_pixels(ends, space)
    if not math.isfinite(high - low):
        raise ValueError(f"{whose} hold values that are not finite: as pixels they span [{low:g}, {high:g}]")
    excess = max(space.lower - low, high - space.upper)
    if excess > _slack(space, dtype):
        raise ValueError(
            f"{whose} are outside the pixel range [{space.lower:g}, {space.upper:g}] of {space}: as pixels they span "
            f"[{low:.6g}, {high:.6g}], {excess:.3g} beyond it. {_advice(excess, space, dtype)}"
        )


def _in_pixels(ends: Tensor, space: PixelSpace) -> tuple[float, float]:  # [2, C or 1]
    """The smallest and the largest pixel value of all channels; NaN if one is."""
    constants = [values[: ends.shape[1]] for values in (space.mean, space.std)]
    mean, std = torch.tensor(constants, dtype=torch.float64, device="cpu")  # [C or 1] each
    low, high = ends.to(torch.float64) * std + mean  # [C or 1] each
    return low.min().item(), high.max().item()


def _slack(space: PixelSpace, dtype: torch.dtype) -> float:
    """How far beyond the range, in pixel values, rounding may lead."""
    bounds = space.bounds(dtype)
    largest = max(abs(bound) * std for side in bounds for bound, std in zip(side, space.std, strict=True))
    return _ROUNDING * (space.upper - space.lower) + torch.finfo(dtype).eps * largest


def _advice(excess: float, space: PixelSpace, dtype: torch.dtype) -> str:
    normalised = (
        "ass the PixelSpace that matches how they were normalised: raw, unit, symmetric, imagenet, or "
        "normalized(mean, std) with the constants of your transform"
    )
    if excess > OVERSHOOT * (space.upper - space.lower):
        return f"P{normalised}"
    return f"Bicubic and Lanczos interpolation overshoot like this: {_clamp(space, dtype)}. Otherwise p{normalised}"


def _clamp(space: PixelSpace, dtype: torch.dtype) -> str:
    """How to bring images into the range."""
    if space.uniform:
        (lower, *_), (upper, *_) = space.bounds(dtype)
        return f"clamp the images by images.clamp_({lower:.9g}, {upper:.9g})"
    return (
        f"clamp the pixels before they are normalised, by pixels.clamp_({space.lower:g}, {space.upper:g}), or "
        "by clamp_(0, 1) on a [0, 1] scale"
    )


def warn_of_unit_scale(ends: Tensor, dtype: torch.dtype, space: PixelSpace) -> None:  # [2, C or 1], on the CPU
    """Warn of images that all lie in [0, 1] where the space is wider: they were probably not normalised yet."""
    least, most = ends[0].min().item(), ends[1].max().item()
    lower, upper = space.bounds(dtype)
    if 0 <= least < most <= 1 and (min(lower) < 0 or max(upper) > 1):
        low, high = _in_pixels(ends, space)
        warnings.warn(
            f"all images lie in [{least:.3g}, {most:.3g}], as if they were on a [0, 1] scale, which is "
            f"PixelSpace.unit(); in {space} that is only [{low:.6g}, {high:.6g}] of the pixel range "
            f"[{space.lower:g}, {space.upper:g}]",
            stacklevel=caller_level(),
        )


class RangeWatch:
    """Refuses a batch of images outside the space, whether it is the first or a later one.

    To look at images on a GPU is to wait for it. With ``waits=False`` only batches up to the first that passes are
    waited for; what a later one holds is copied meanwhile and judged when the next batch comes. The last batch is
    judged when the watch itself is no longer used, and then gives a warning. A batch within a CUDA graph that the
    caller captures is not looked at, and does not count; the one before is judged after it.

    Args:
        space: in which the images should lie.
        one: what a batch is called in messages, which count them.
        waits: look at each batch at once, on a GPU too.
    """

    def __init__(self, space: PixelSpace, *, one: str = "batch", waits: bool = True) -> None:
        self._space = space
        self._one = one
        self._waits = waits
        self._number = 0
        self.passed = False
        # The ends of the batch before, where they were found, and the check of them, if that has yet to come.
        self._late: list[tuple[Tensor, Callable[[], None]]] = []
        weakref.finalize(self, _warn_of, self._late)

    def look(self, images: Tensor, validate: str = "always") -> None:
        """Judge the batch before, and this one.

        Args:
            images: [N, C, ...].
            validate: one of :data:`VALIDATE`; ``"first"`` looks until a batch has passed.

        Raises:
            ValueError: values that are not finite or outside the space, or channels that it does not describe.
            TypeError: images that are no floating tensor.
        """
        # The graph of a caller's torch.compile ends here anyway, where a value is read. Within it numbers are symbolic,
        # and no message can hold them. Not a decorator: that would load the compiler with this package.
        look = self._look
        if torch.compiler.is_compiling():
            look = torch.compiler.disable(look)  # type: ignore[no-untyped-call]
        look(images, validate)

    def _look(self, images: Tensor, validate: str) -> None:
        if devices.is_captured(images):
            return
        self._number += 1
        while self._late:
            _, check = self._late.pop()
            check()
        if validate == "never" or (validate == "first" and self.passed) or images.numel() == 0:
            return
        self._space.check_form(images)
        ends = ends_of(images.detach(), self._space)  # [2, C or 1]
        whose = f"the images of {self._one} {self._number:,}"
        if self.passed and not self._waits and _is_waited_for(images):
            self._late.append((ends, _later(ends, self._space, whose)))
            return
        ends = ends.cpu()
        check_ends(ends, images.dtype, self._space, whose)
        if not self.passed:
            warn_of_unit_scale(ends, images.dtype, self._space)
        self.passed = True

    def __reduce__(self) -> tuple[Any, ...]:
        return _watch, (self._space, self._one, self._waits)  # a copy begins anew: events cannot be copied


def _watch(space: PixelSpace, one: str, waits: bool) -> RangeWatch:
    return RangeWatch(space, one=one, waits=waits)


def _is_waited_for(images: Tensor) -> bool:
    return images.is_cuda


def _later(ends: Tensor, space: PixelSpace, whose: str) -> Callable[[], None]:  # [2, C or 1]
    """What checks a batch once its ends have arrived on the CPU, on their way from now on."""
    arriving = ends.to("cpu", non_blocking=True)  # into pinned memory
    arrived = torch.cuda.Event() if ends.is_cuda else None  # type: ignore[no-untyped-call]
    if arrived is not None:
        arrived.record(torch.cuda.current_stream(ends.device))

    def check() -> None:
        if arrived is not None:
            arrived.synchronize()
        check_ends(arriving, ends.dtype, space, whose)

    return check


def _warn_of(late: list[tuple[Tensor, Callable[[], None]]]) -> None:
    """Say of the last batch, after which no other came, what its check would have raised."""
    for ends, check in late:
        try:
            if not devices.is_captured(ends):  # to wait would spoil the caller's graph
                check()
        except ValueError as error:
            warnings.warn(str(error), stacklevel=caller_level() + 1)  # past weakref
        except RuntimeError:
            pass  # CUDA repeats the error of an earlier kernel, which the caller has seen
