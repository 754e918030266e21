"""Detect compression, for error messages about files that must not be compressed."""

from __future__ import annotations

import zlib
from pathlib import Path

_MAGIC = {b"BZh": "bzip2", b"\xfd7zXZ\0": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
_GZIP_OR_ZLIB = 32 + zlib.MAX_WBITS
_PROBED_BYTES = 4096


def compression_of(file: Path) -> str | None:
    """Name of a file's compression, such as gzip; None if it does not seem to be compressed."""
    with file.open("rb") as content:
        beginning = content.read(_PROBED_BYTES)
    try:
        if zlib.decompressobj(_GZIP_OR_ZLIB).decompress(beginning, 1):
            return "gzip" if beginning.startswith(b"\x1f\x8b") else "zlib"
    except zlib.error:
        pass
    return next((name for magic, name in _MAGIC.items() if beginning.startswith(magic)), None)
