"""Remarks: what the library does meanwhile, as lines of the logger "fastadv", which a program may show or not."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from fastadv.utils.text import printable_lines

remarks = logging.getLogger("fastadv")


class _Printable(logging.Formatter):
    """Remarks name files."""

    def format(self, record: logging.LogRecord) -> str:
        return printable_lines(super().format(record))


@contextmanager
def remarks_shown() -> Iterator[None]:
    """Within the block, each remark is a line on standard error, as commands show them."""
    handler, before = logging.StreamHandler(), (remarks.level, remarks.propagate)
    handler.setFormatter(_Printable())
    remarks.addHandler(handler)
    remarks.setLevel(logging.INFO)
    remarks.propagate = False  # a package that gives the root logger a handler would have them come twice
    try:
        yield
    finally:
        remarks.setLevel(before[0])
        remarks.propagate = before[1]
        remarks.removeHandler(handler)
