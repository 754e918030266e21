"""Show warnings as a command does: one line each, once, without the source line that a programmer would want."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from fastadv.utils.text import printable_lines


@contextmanager
def warning_lines(program: str) -> Iterator[None]:
    """Within the block, print each warning once, as the line ``PROGRAM: warning: TEXT`` on standard error."""
    shown: set[str] = set()

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if str(message) not in shown:
            shown.add(str(message))
            print(f"{program}: warning: {printable_lines(message)}", file=sys.stderr)

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield
