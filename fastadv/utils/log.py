"""The logger "fastadv", to which the library reports what it does; commands show it on standard error."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from fastadv.utils.text import printable_lines

logger = logging.getLogger("fastadv")


class _Printable(logging.Formatter):
    """Escapes control characters: messages contain file names."""

    def format(self, record: logging.LogRecord) -> str:
        return printable_lines(super().format(record))


@contextmanager
def log_to_stderr() -> Iterator[None]:
    """Within the block, print log messages on standard error, as commands do."""
    handler, before = logging.StreamHandler(), (logger.level, logger.propagate)
    handler.setFormatter(_Printable())
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False  # or they appear twice if a package gave the root logger a handler
    try:
        yield
    finally:
        logger.setLevel(before[0])
        logger.propagate = before[1]
        logger.removeHandler(handler)
