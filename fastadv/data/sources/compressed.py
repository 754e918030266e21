"""Whether a file is compressed, for messages about files that must not be."""

from __future__ import annotations

import zlib
from pathlib import Path

_BEGINNINGS = {b"BZh": "bzip2", b"\xfd7zXZ\0": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
_GZIP_OR_ZLIB = 32 + zlib.MAX_WBITS
_ENOUGH = 4096  # bytes that are tried


def compression_of(file: Path) -> str | None:
    """How a file is compressed, as in GZIP; None if it does not seem to be."""
    with file.open("rb") as content:
        beginning = content.read(_ENOUGH)
    try:
        if zlib.decompressobj(_GZIP_OR_ZLIB).decompress(beginning, 1):
            return "gzip" if beginning.startswith(b"\x1f\x8b") else "zlib"
    except zlib.error:
        pass
    return next((name for magic, name in _BEGINNINGS.items() if beginning.startswith(magic)), None)
