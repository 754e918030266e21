"""Read protobuf's wire format in place: a usual parser would not tell where values are in the file.

Every read is bounded by its message, and takes time proportional to its length.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

_VARINT, _LENGTH = 0, 2  # wire types
_FIXED = {1: 8, 5: 4}  # other wire types and their bytes; 3 and 4 are groups, which are obsolete
_LONGEST = 10  # bytes of a 64-bit varint
_BITS = 64


class Part(NamedTuple):
    """A range of bytes in a file: a message, or a field of one."""

    file: BinaryIO
    start: int
    end: int

    @property
    def size(self) -> int:
        """Size in bytes."""
        return self.end - self.start

    def read(self) -> bytes:
        """Read the bytes.

        Raises:
            ValueError: if the file has become shorter.
        """
        self.file.seek(self.start)
        found = self.file.read(self.size)
        if len(found) < self.size:
            raise ValueError("the file ends within it")
        return found

    def fields(self) -> Iterator[tuple[int, int | Part | None]]:
        """Iterate over the fields of the message: number, and content (an integer, a part, or None for a float).

        Raises:
            ValueError: if a field extends beyond its message, or is of an unknown kind.
        """
        at = self.start
        while at < self.end:
            self.file.seek(at)
            head = self.file.read(min(2 * _LONGEST, self.end - at))  # two numbers, or one
            tag, used = _varint(head, 0)
            number, kind = tag >> 3, tag & 7
            if kind == _VARINT:
                value, used = _varint(head, used)
                yield number, value
                at += used
                continue
            size, used = _length(kind, head, used)
            start = at + used
            if size > self.end - start:
                raise ValueError("a field extends beyond its message")
            at = start + size
            yield number, Part(self.file, start, at) if kind == _LENGTH else None

    def numbered(self, *numbers: int) -> Iterator[tuple[int, Part]]:
        """Iterate over fields with these numbers, which must be messages, bytes or other values with a length.

        Raises:
            ValueError: if one has no length; see also :meth:`fields`.
        """
        for number, content in self.fields():
            if number in numbers:
                if not isinstance(content, Part):
                    raise ValueError(f"field {number} of a message must not be a number")
                yield number, content

    def parts(self, number: int) -> Iterator[Part]:
        """Iterate over the fields with one number; see :meth:`numbered`."""
        return (content for _, content in self.numbered(number))

    def integers(self, number: int) -> Iterator[int]:
        """Iterate over the values of a repeated int64, packed or not.

        Raises:
            ValueError: if the field is not an integer; see also :meth:`fields`.
        """
        for found, content in self.fields():
            if found != number:
                continue
            if content is None:
                raise ValueError(f"field {number} of a message must be an integer")
            yield from map(_signed, content._packed() if isinstance(content, Part) else [content])

    def _packed(self) -> Iterator[int]:
        at = self.start
        while at < self.end:
            value, used = _varint(Part(self.file, at, min(at + _LONGEST, self.end)).read(), 0)
            yield value
            at += used


def _length(kind: int, head: bytes, at: int) -> tuple[int, int]:
    """Length of a field of this wire type, and where its content starts."""
    if kind == _LENGTH:
        return _varint(head, at)
    if kind in _FIXED:
        return _FIXED[kind], at
    raise ValueError(f"a field has the unsupported wire type {kind}")


def _varint(head: bytes, at: int) -> tuple[int, int]:
    """Decode the varint at ``at``; returns the number and where it ends. Seven bits per byte, lowest first."""
    if at < len(head) and head[at] < 0x80:  # the usual case
        return head[at], at + 1
    value = 0
    for place, byte in enumerate(head[at : at + _LONGEST]):
        value |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            if value >> _BITS:
                break
            return value, at + place + 1
    raise ValueError(f"a number extends beyond its message, or has more than {_BITS} bits")


def _signed(value: int) -> int:
    """Interpret 64 bits as two's complement."""
    return value - (1 << _BITS) if value >> (_BITS - 1) else value
