"""Output to terminals that cannot show every character, such as ASCII terminals."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager


@contextmanager
def escape_unencodable() -> Iterator[None]:
    """Within the block, escape characters that a stream cannot encode, such as an epsilon as ``\\u03b5``.

    Otherwise a single character could make a command fail when it is about to print its results.
    """
    with ExitStack() as stack:
        for stream in {sys.stdout, sys.stderr}:
            if isinstance(stream, io.TextIOWrapper):
                stack.callback(stream.reconfigure, errors=stream.errors)
                stream.reconfigure(errors="backslashreplace")
        yield
