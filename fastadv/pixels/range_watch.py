"""Refuses images outside the pixel range, whichever batch they come in."""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fastadv.pixels.range_check import channel_extremes, check_extremes, warn_of_unit_scale
from fastadv.pixels.space import PixelSpace
from fastadv.utils import devices
from fastadv.utils.stacklevel import user_stacklevel

VALIDATE = ("first", "always", "never")  # which batches are looked at


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
        ends = channel_extremes(images.detach(), self._space)  # [2, C or 1]
        whose = f"the images of {self._one} {self._number:,}"
        if self.passed and not self._waits and _is_waited_for(images):
            self._late.append((ends, _later(ends, self._space, whose)))
            return
        ends = ends.cpu()
        check_extremes(ends, images.dtype, self._space, whose)
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
        check_extremes(arriving, ends.dtype, space, whose)

    return check


def _warn_of(late: list[tuple[Tensor, Callable[[], None]]]) -> None:
    """Say of the last batch, after which no other came, what its check would have raised."""
    for ends, check in late:
        try:
            if not devices.is_captured(ends):  # to wait would spoil the caller's graph
                check()
        except ValueError as error:
            warnings.warn(str(error), stacklevel=user_stacklevel() + 1)  # past weakref
        except RuntimeError:
            pass  # CUDA repeats the error of an earlier kernel, which the caller has seen
