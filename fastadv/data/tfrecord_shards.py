"""TFRecord shards of tf.train.Example messages, in the features that ImageNet's usual conversion writes.

A record is: its length (8 bytes, little-endian), a checksum of that (4), the message, a checksum of it (4). The few
kinds of fields that an Example has are read here from protobuf's wire format, because a parser that makes objects of
the message cannot say where in the file the image lies.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from pathlib import Path

from fastadv.data.shards import Entry

IMAGE, LABEL, FILE_NAME = b"image/encoded", b"image/class/label", b"image/filename"
_LENGTH = 2  # the wire type of a field that says how long it is
_HEADER, _CHECKSUM = 12, 4  # bytes


def tfrecord_entries(file: Path) -> list[Entry]:
    """The images of a TFRecord file, with the labels that it gives them.

    ImageNet's usual conversion counts classes from 1, with 0 for a background that no image shows: such a set has 1001
    classes.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not a whole TFRecord file, or an example lacks ``image/encoded`` or ``image/class/label``.
    """
    if file.stat().st_size == 0:
        return []
    with file.open("rb") as content, mmap.mmap(content.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            return [_entry(data, number, *record) for number, record in enumerate(_records(data))]
        except (ValueError, IndexError, struct.error) as error:
            raise ValueError(f"{file} is not a whole TFRecord file of images: {error}") from error


def _records(data: mmap.mmap) -> Iterator[tuple[int, int]]:
    """Where each message begins and ends."""
    start = 0
    while start < len(data):
        (length,) = struct.unpack_from("<Q", data, start)
        begin = start + _HEADER
        if begin + length + _CHECKSUM > len(data):
            raise ValueError(f"the record at byte {start} reaches beyond the end")
        yield begin, begin + length
        start = begin + length + _CHECKSUM


def _entry(data: mmap.mmap, number: int, start: int, end: int) -> Entry:
    """Of an Example { Features features = 1 }, Features { map<string, Feature> feature = 1 }."""
    features = {}
    for example in _fields(data, start, end, 1):
        for pair in _fields(data, *example, 1):
            ((key_start, key_end),) = _fields(data, *pair, 1)
            (features[data[key_start:key_end]],) = _fields(data, *pair, 2)
    lacking = [name.decode() for name in (IMAGE, LABEL) if name not in features]
    if lacking:
        raise ValueError(f"example {number} has no {' and no '.join(lacking)}")
    image_start, image_end = _bytes(data, features[IMAGE])
    name = data[slice(*_bytes(data, features[FILE_NAME]))].decode() if FILE_NAME in features else str(number)
    return Entry(name, image_start, image_end - image_start, _integer(data, features[LABEL]))


def _bytes(data: mmap.mmap, feature: tuple[int, int]) -> tuple[int, int]:
    """Of Feature { BytesList bytes_list = 1 }, BytesList { repeated bytes value = 1 }: where the first value lies."""
    ((start, end),) = _fields(data, *feature, 1)
    return next(_fields(data, start, end, 1))


def _integer(data: mmap.mmap, feature: tuple[int, int]) -> int:
    """Of Feature { Int64List int64_list = 3 }, Int64List { repeated int64 value = 1 }: the first, packed or not."""
    ((start, _),) = _fields(data, *feature, 3)
    tag, position = _varint(data, start)
    if tag & 7 == _LENGTH:
        _, position = _varint(data, position)
    return _varint(data, position)[0]


def _fields(data: mmap.mmap, start: int, end: int, wanted: int) -> Iterator[tuple[int, int]]:
    """Where the length-delimited fields of this number begin and end, in a message."""
    while start < end:
        tag, start = _varint(data, start)
        if tag & 7 != _LENGTH:
            raise ValueError(f"a field of wire type {tag & 7} at byte {start}, where an Example has none")
        length, start = _varint(data, start)
        if start + length > end:
            raise ValueError(f"a field at byte {start} reaches beyond its message")
        if tag >> 3 == wanted:
            yield start, start + length
        start += length


def _varint(data: mmap.mmap, position: int) -> tuple[int, int]:
    """The number that begins here, and where it ends: seven bits a byte, lowest first."""
    value = shift = 0
    while True:
        byte = data[position]
        value |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if byte < 0x80:
            return value, position
