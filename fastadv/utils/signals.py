"""Handles signals that end a command early: SIGINT from Ctrl-C, and SIGTERM from a cluster's scheduler."""

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
    """Within the block, call ``then`` on the first SIGINT or SIGTERM; a second one has its usual effect."""
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
    """Return the exit code of a program that this signal ended: 130 for SIGINT, 143 for SIGTERM."""
    return 128 + number


# --- in a command's child processes ----------------------------------------------------------------------------------


@contextmanager
def block_signals() -> Iterator[None]:
    """Block SIGINT and SIGTERM in this thread within the block, and for good in threads and processes started there.

    Signals that are sent to this thread meanwhile arrive after the block.
    """
    resource_tracker.ensure_running()  # multiprocessing starts it on demand, and unblocks both signals
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def obey_parent_only() -> None:
    """End this :mod:`multiprocessing` child only on a SIGTERM or SIGINT from its parent, or when the parent ends.

    torchrun and terminals send signals to all processes of a command at once, but the parent may need this one for
    another iteration, and ends it itself. A parent that is killed cannot do that: DataLoader workers that a fork server
    started would wait for its next order forever.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None
    signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
    for target, argument in ((_end_when_told, parent.pid), (_end_with, parent)):
        Thread(target=target, args=(argument,), daemon=True).start()


def _end_when_told(by: int | None) -> None:
    # Unlike a handler, sigwaitinfo tells who sent the signal.
    while signal.sigwaitinfo(_ENDING).si_pid != by:
        pass
    os._exit(0)


def _end_with(parent: BaseProcess) -> None:
    parent.join()
    os._exit(0)
