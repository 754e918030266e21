"""Write TFRecord files."""

from __future__ import annotations

import struct


def varint(value: int) -> bytes:
    value &= 2**64 - 1  # negative numbers are written as of 64 bits
    low, rest = value & 0x7F, value >> 7
    return bytes([low | 0x80]) + varint(rest) if rest else bytes([low])


def field(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def feature(name: str, value: bytes | int | float, packed: bool = True) -> bytes:
    """An entry of the map in tf.train.Features."""
    if isinstance(value, bytes):
        kind = field(1, field(1, value))
    elif isinstance(value, float):
        kind = field(2, field(1, struct.pack("<f", value)))
    else:
        kind = field(3, field(1, varint(value)) if packed else varint(1 << 3) + varint(value))
    return field(1, field(1, name.encode()) + field(2, kind))


def record(message: bytes) -> bytes:
    """A record with checksums of zero, which readers may ignore."""
    return struct.pack("<QI", len(message), 0) + message + struct.pack("<I", 0)


def example_message(name: str, image: bytes, label: int, packed: bool = True) -> bytes:
    return field(
        1,
        feature("image/height", 8)
        + feature("image/encoded", image)
        + feature("image/object/bbox/xmin", 0.5)
        + feature("image/class/label", label, packed)
        + feature("image/filename", f"{name}.JPEG".encode()),
    )
