"""Remarks: what the library does meanwhile, as lines of the logger "fastadv", which a program may show or not."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from fastadv.utils.text import printable_lines

logger = logging.getLogger("fastadv")


class _Printable(logging.Formatter):
    """Remarks name files."""

    def format(self, record: logging.LogRecord) -> str:
        return printable_lines(super().format(record))


@contextmanager
def log_to_stderr() -> Iterator[None]:
    """Within the block, each remark is a line on standard error, as commands show them."""
    handler, before = logging.StreamHandler(), (logger.level, logger.propagate)
    handler.setFormatter(_Printable())
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False  # a package that gives the root logger a handler would have them come twice
    try:
        yield
    finally:
        logger.setLevel(before[0])
        logger.propagate = before[1]
        logger.removeHandler(handler)
