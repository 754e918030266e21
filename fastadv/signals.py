"""Signals that end a command early: SIGINT, from Ctrl-C, and SIGTERM, from a cluster that wants its machine back."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_ENDING = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def on_first_signal(then: Callable[[signal.Signals], None]) -> Iterator[None]:
    """Within the block, call ``then`` at the first SIGINT or SIGTERM; a second one acts as outside of it."""
    before = {number: signal.getsignal(number) for number in _ENDING}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def handle(number: int, frame: FrameType | None) -> None:
        restore()
        then(signal.Signals(number))

    for number in _ENDING:
        signal.signal(number, handle)
    try:
        yield
    finally:
        restore()


def interrupt(number: signal.Signals) -> None:
    """Raise KeyboardInterrupt for any signal, with its number for :func:`exit_code`."""
    raise KeyboardInterrupt(number)


def exit_code(number: signal.Signals = signal.SIGINT) -> int:
    """What a shell reports for a program that this signal ended: 130 for SIGINT, 143 for SIGTERM."""
    return 128 + number
