"""Pace: images per second, and the share of the time that training waits for its loader."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


class Pace:
    """Measures images per second since the last restart, and the share of that time spent waiting for the loader.

    Waiting is the time until the loader yields a minibatch. It includes loading, unless other threads or processes do
    that, and starting those at the beginning of an epoch. The clock is the host's and waits for no device: a GPU may be
    busy meanwhile, so this is an upper bound on how long it was idle for lack of data.
    """

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Restart the clock and the count."""
        self._images = 0
        self._waited = 0.0
        self._since = time.perf_counter()

    def count(self, images: int) -> None:
        """Count images that were trained on."""
        self._images += images

    def timed(self, minibatches: Iterable[T]) -> Iterator[T]:
        """Yield the minibatches; the time until each arrives counts as waiting."""
        since = time.perf_counter()
        for minibatch in minibatches:
            self._waited += time.perf_counter() - since
            yield minibatch
            since = time.perf_counter()

    def read(self) -> tuple[float, float]:
        """Images per second, and the share of the time spent waiting."""
        seconds = time.perf_counter() - self._since
        return self._images / seconds, self._waited / seconds
