"""Logs work that takes long without showing progress."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from fastadv.utils.log import logger

SLOW = 2.0  # seconds


@contextmanager
def log_if_slow(what: str) -> Iterator[None]:
    """Log ``what`` if the block takes over :data:`SLOW` seconds.

    Only the first of torchrun's processes logs it.
    """
    timer = threading.Timer(SLOW, lambda: logger.info("%s ...", what))
    timer.daemon = True
    if os.environ.get("RANK", "0") == "0":
        timer.start()
    try:
        yield
    finally:
        timer.cancel()
