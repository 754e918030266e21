"""Checks batch after batch that images lie in the pixel range, without making a GPU wait."""

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

VALIDATE = ("first", "always", "never")  # which batches are checked


class RangeWatch:
    """Refuses batches of images outside the space.

    Reading values from a GPU waits for it. With ``waits=False`` this happens only for batches up to the first that
    passes; the extremes of later ones are copied asynchronously and checked when the next batch comes. The last batch
    is checked when the watch is deleted, and then causes a warning. A batch inside a CUDA graph that the caller
    captures is neither checked nor counted, and the batch before it is checked afterwards.

    Args:
        space: the space that the images should lie in.
        one: what to call a batch in messages, which count them.
        waits: check each batch immediately, also on a GPU.
    """

    def __init__(self, space: PixelSpace, *, one: str = "batch", waits: bool = True) -> None:
        self._space = space
        self._one = one
        self._waits = waits
        self._number = 0
        self.passed = False
        # The extremes of the previous batch, on its device, and their check, if that is still to come.
        self._pending: list[tuple[Tensor, Callable[[], None]]] = []
        weakref.finalize(self, _warn_of_last_batch, self._pending)

    def look(self, images: Tensor, validate: str = "always") -> None:
        """Check the previous batch, if it was not yet, and this one.

        Args:
            images: [N, C, ...].
            validate: one of :data:`VALIDATE`; ``"first"`` checks until a batch has passed.

        Raises:
            ValueError: if values are not finite or outside the space, or the space does not describe the channels.
            TypeError: if the images are not a floating tensor.
        """
        # Reading a value ends the graph of a caller's torch.compile in any case, and inside it numbers are symbolic,
        # which messages cannot show. Not a decorator, which would load the compiler together with this package.
        look = self._look
        if torch.compiler.is_compiling():
            look = torch.compiler.disable(look)  # type: ignore[no-untyped-call]
        look(images, validate)

    def _look(self, images: Tensor, validate: str) -> None:
        if devices.is_captured(images):
            return
        self._number += 1
        while self._pending:
            _, check = self._pending.pop()
            check()
        if validate == "never" or (validate == "first" and self.passed) or images.numel() == 0:
            return
        self._space.check_form(images)
        ends = channel_extremes(images.detach(), self._space)  # [2, C or 1]
        whose = f"the images of {self._one} {self._number:,}"
        if self.passed and not self._waits and _is_waited_for(images):
            self._pending.append((ends, _deferred_check(ends, self._space, whose)))
            return
        ends = ends.cpu()
        check_extremes(ends, images.dtype, self._space, whose)
        if not self.passed:
            warn_of_unit_scale(ends, images.dtype, self._space)
        self.passed = True

    def __reduce__(self) -> tuple[Any, ...]:
        return _watch, (self._space, self._one, self._waits)  # a copy starts over: events cannot be copied


def _watch(space: PixelSpace, one: str, waits: bool) -> RangeWatch:
    return RangeWatch(space, one=one, waits=waits)


def _is_waited_for(images: Tensor) -> bool:
    return images.is_cuda


def _deferred_check(ends: Tensor, space: PixelSpace, whose: str) -> Callable[[], None]:  # [2, C or 1]
    """Start copying the extremes to the CPU; return a function that waits for them and checks them."""
    arriving = ends.to("cpu", non_blocking=True)  # into pinned memory
    arrived = torch.cuda.Event() if ends.is_cuda else None  # type: ignore[no-untyped-call]
    if arrived is not None:
        arrived.record(torch.cuda.current_stream(ends.device))

    def check() -> None:
        if arrived is not None:
            arrived.synchronize()
        check_extremes(arriving, ends.dtype, space, whose)

    return check


def _warn_of_last_batch(pending: list[tuple[Tensor, Callable[[], None]]]) -> None:
    """Warn with the error of the last batch's check, since no further call can raise it."""
    for ends, check in pending:
        try:
            if not devices.is_captured(ends):  # waiting would break the caller's graph
                check()
        except ValueError as error:
            warnings.warn(str(error), stacklevel=user_stacklevel() + 1)  # past weakref
        except RuntimeError:
            pass  # CUDA repeats an earlier kernel's error, which the caller has seen
