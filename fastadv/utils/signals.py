"""Signals that end a command early: SIGINT, from Ctrl-C, and SIGTERM, from a cluster that wants its machine back."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.process import BaseProcess
from threading import Thread
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


# --- in the processes that a command starts --------------------------------------------------------------------------


@contextmanager
def block_signals() -> Iterator[None]:
    """Within the block, this thread gets no SIGINT or SIGTERM, nor do, ever, threads and processes that begin in it.

    What is sent to this thread meanwhile comes after the block.
    """
    resource_tracker.ensure_running()  # which multiprocessing starts when it needs it, and then lets both signals in
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def obey_parent_only() -> None:
    """Let this process, one of :mod:`multiprocessing`'s, end by a SIGTERM or SIGINT of its parent, or with it.

    torchrun and terminals send their signals to all processes of a command at once. The parent decides what follows: it
    may need this one for an iteration more, and ends it. A parent that is killed ends nothing, and who waits for its
    next order would wait for ever: DataLoader's workers do, where a server forks them, which stays as long as they do.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None
    signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
    for target, argument in ((_end_when_told, parent.pid), (_end_with, parent)):
        Thread(target=target, args=(argument,), daemon=True).start()


def _end_when_told(by: int | None) -> None:
    # Handlers do not learn who has sent a signal; who waits for it does.
    while signal.sigwaitinfo(_ENDING).si_pid != by:
        pass
    os._exit(0)


def _end_with(parent: BaseProcess) -> None:
    parent.join()
    os._exit(0)
