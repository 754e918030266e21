"""Standard output and error that do not have every character, such as those of an ASCII terminal."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager


@contextmanager
def escape_unencodable() -> Iterator[None]:
    """Within the block, what a stream's encoding does not have is written as an escape: ``\\u03b5`` for an epsilon.

    Otherwise a name or a sign would end a command when its work is done and is about to be shown.
    """
    with ExitStack() as stack:
        for stream in {sys.stdout, sys.stderr}:
            if isinstance(stream, io.TextIOWrapper):
                stack.callback(stream.reconfigure, errors=stream.errors)
                stream.reconfigure(errors="backslashreplace")
        yield
