"""A remark on work that may take long and shows nothing."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from fastadv.utils.log import logger

SLOW = 2.0  # seconds


@contextmanager
def log_if_slow(what: str) -> Iterator[None]:
    """Within the block, a remark says what is being done once that has taken :data:`SLOW` seconds.

    Of processes that torchrun started, the first says it for all.
    """
    timer = threading.Timer(SLOW, lambda: logger.info("%s ...", what))
    timer.daemon = True
    if os.environ.get("RANK", "0") == "0":
        timer.start()
    try:
        yield
    finally:
        timer.cancel()
