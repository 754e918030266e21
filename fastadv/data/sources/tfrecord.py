"""TFRecord shards of tf.train.Example messages, in the features that ImageNet's usual conversion writes.

A record is: its length (8 bytes, little-endian), a checksum of the length (4), the message, a checksum of it (4).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import BinaryIO, TypeVar

from fastadv.data.sources.compressed import compression_of
from fastadv.data.sources.shard_index import LONGEST_KEY, Contents, Entry
from fastadv.data.sources.wire_format import Part

IMAGE, LABEL, FILE_NAME = "image/encoded", "image/class/label", "image/filename"
_WANTED = {name.encode(): name for name in (IMAGE, LABEL, FILE_NAME)}
_LONGEST_NAME = max(map(len, _WANTED))
_BYTES, _FLOATS, _INTEGERS = 1, 2, 3  # fields of a Feature, which has one of them
_KINDS = {0: "nothing", _BYTES: "bytes", _FLOATS: "floating-point numbers", _INTEGERS: "integers"}
_LENGTH, _HEADER, _CHECKSUM = 8, 12, 4  # bytes

_Feature = list[Part]  # a message may be split into several parts, which are read as if they were adjacent
_Value = TypeVar("_Value", Part, int)


def tfrecord_entries(file: Path) -> Contents:
    """List the images of a TFRecord file and their labels.

    ImageNet's usual conversion counts classes from 1, and 0 is a background class without images: such a data set has
    1001 classes.

    Raises:
        OSError: if it cannot be read.
        ValueError: if it is not a complete, uncompressed TFRecord file, an example is damaged, or has not one value in
            ``image/encoded`` and one in ``image/class/label``, which must be a number from 0.
    """
    with file.open("rb") as content:
        return Contents([_named(file, number, message) for number, message in enumerate(_records(file, content))])


def _records(file: Path, content: BinaryIO) -> Iterator[Part]:
    """Iterate over the messages in a file."""
    start, size = 0, os.fstat(content.fileno()).st_size
    while start < size:
        begin = start + _HEADER
        content.seek(start)
        end = begin + int.from_bytes(content.read(_LENGTH), "little")
        if end + _CHECKSUM > size:
            found = compression_of(file)
            why = f"it is compressed ({found})" if found else f"the record at byte {start} extends beyond the end"
            raise ValueError(f"{file} is not a complete, uncompressed TFRecord file of images: {why}")
        yield Part(content, begin, end)
        start = end + _CHECKSUM


def _named(file: Path, number: int, message: Part) -> Entry:
    try:
        return _entry(number, message)
    except ValueError as error:
        raise ValueError(f"{file}, example {number}: {error}") from error


def _entry(number: int, message: Part) -> Entry:
    features = _features(message)
    if lacking := [name for name in (IMAGE, LABEL) if name not in features]:
        raise ValueError(f"no {' and no '.join(lacking)}")
    label = _one(LABEL, (value for part in _lists(LABEL, features[LABEL], _INTEGERS) for value in part.integers(1)))
    if label < 0:
        raise ValueError(f"{LABEL} must be the number of a class, from 0, got {label}")
    image = _one(IMAGE, (value for part in _lists(IMAGE, features[IMAGE], _BYTES) for value in part.parts(1)))
    return Entry(_file_name(features.get(FILE_NAME, [])) or str(number), image.start, image.size, label)


def _features(message: Part) -> dict[str, _Feature]:
    """The needed features of Example { Features features = 1 }, Features { map<string, Feature> feature = 1 }.

    If two features have the same name, the last counts, as for every reader of protobuf.
    """
    found = {}
    for features in message.parts(1):
        for pair in features.parts(1):
            key, feature = b"", []
            for number, part in pair.fields():
                if number not in (1, 2) or not isinstance(part, Part):  # some readers drop such a pair, others do not
                    raise ValueError(f"field {number} of a feature's entry is neither its name nor its value")
                if number == 1:
                    key = part.read() if part.size <= _LONGEST_NAME else b""
                else:
                    feature.append(part)
            if key in _WANTED:
                found[_WANTED[key]] = feature
    return found


def _lists(name: str, feature: _Feature, wanted: int) -> list[Part]:
    """The lists of values of a feature, whose kind must be ``wanted``.

    Reads Feature { oneof kind { BytesList bytes_list = 1; FloatList float_list = 2; Int64List int64_list = 3 } }, where
    the last kind counts.
    """
    kind, lists = 0, list[Part]()
    for part in feature:
        for number, content in part.numbered(_BYTES, _FLOATS, _INTEGERS):
            if number != kind:
                kind, lists = number, []
            lists.append(content)
    if kind != wanted:
        raise ValueError(f"{name} must hold {_KINDS[wanted]}, got {_KINDS[kind]}")
    return lists


def _one(name: str, values: Iterator[_Value]) -> _Value:
    found = list(islice(values, 2))
    if len(found) != 1:
        raise ValueError(f"{name} must have one value, got {'several' if found else 'none'}")
    return found[0]


def _file_name(feature: _Feature) -> str:
    """The file name, in any encoding; empty if there is none that can be used."""
    try:
        part = _one(FILE_NAME, (value for part in _lists(FILE_NAME, feature, _BYTES) for value in part.parts(1)))
    except ValueError:
        return ""
    return os.fsdecode(part.read()) if part.size <= LONGEST_KEY else ""
