"""RecordedNumber: a number that changes between replays of recorded work."""

from __future__ import annotations

from torch import Tensor


class RecordedNumber:
    """A place from which recorded work reads a number, or one per example; unchanged numbers are not written again.

    Args:
        place: [N] or scalar.
    """

    def __init__(self, place: Tensor) -> None:
        self.place = place
        self._number: float | None = None

    def set(self, value: float | Tensor) -> None:  # number or as the place
        if isinstance(value, Tensor):
            self.place.copy_(value)
            self._number = None
        elif value != self._number:
            self.place.fill_(value)
            self._number = value
