"""Protobuf's wire format, read in place, since a parser that makes objects cannot say where they lie in the file.

Every read is bounded by the message that it belongs to, and takes time in proportion to what is read.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

_VARINT, _LENGTH = 0, 2  # wire types
_FIXED = {1: 8, 5: 4}  # others, and their bytes; 3 and 4 are groups, which are out of use
_LONGEST = 10  # bytes of a varint of 64 bits
_BITS = 64


class Part(NamedTuple):
    """A stretch of a file: a message, or a field of one."""

    file: BinaryIO
    start: int
    end: int

    @property
    def size(self) -> int:
        """In bytes."""
        return self.end - self.start

    def read(self) -> bytes:
        """Its bytes.

        Raises:
            ValueError: the file has become shorter.
        """
        self.file.seek(self.start)
        found = self.file.read(self.size)
        if len(found) < self.size:
            raise ValueError("the file ends within it")
        return found

    def fields(self) -> Iterator[tuple[int, int | Part | None]]:
        """Of the message, the number and the content of each field: an integer, a part, or None for a float's bytes.

        Raises:
            ValueError: a field reaches beyond its message, or is of an unknown kind.
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
                raise ValueError("a field reaches beyond its message")
            at = start + size
            yield number, Part(self.file, start, at) if kind == _LENGTH else None

    def numbered(self, *numbers: int) -> Iterator[tuple[int, Part]]:
        """The fields of these numbers, each of which must have a length of its own, as messages and bytes have.

        Raises:
            ValueError: one has not; or as for :meth:`fields`.
        """
        for number, content in self.fields():
            if number in numbers:
                if not isinstance(content, Part):
                    raise ValueError(f"field {number} of a message is a number, and may not be")
                yield number, content

    def parts(self, number: int) -> Iterator[Part]:
        """The fields of one number, as for :meth:`numbered`."""
        return (content for _, content in self.numbered(number))

    def integers(self, number: int) -> Iterator[int]:
        """The values of a repeated int64, packed or not.

        Raises:
            ValueError: as for :meth:`fields`, or the field is no integer.
        """
        for found, content in self.fields():
            if found != number:
                continue
            if content is None:
                raise ValueError(f"field {number} of a message is no integer, and must be")
            yield from map(_signed, content._packed() if isinstance(content, Part) else [content])

    def _packed(self) -> Iterator[int]:
        at = self.start
        while at < self.end:
            value, used = _varint(Part(self.file, at, min(at + _LONGEST, self.end)).read(), 0)
            yield value
            at += used


def _length(kind: int, head: bytes, at: int) -> tuple[int, int]:
    """How long a field of this wire type is, and where it begins."""
    if kind == _LENGTH:
        return _varint(head, at)
    if kind in _FIXED:
        return _FIXED[kind], at
    raise ValueError(f"a field has the wire type {kind}, which no example has")


def _varint(head: bytes, at: int) -> tuple[int, int]:
    """The number that begins here, and where it ends: seven bits a byte, lowest first."""
    if at < len(head) and head[at] < 0x80:  # as nearly all are
        return head[at], at + 1
    value = 0
    for place, byte in enumerate(head[at : at + _LONGEST]):
        value |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            if value >> _BITS:
                break
            return value, at + place + 1
    raise ValueError(f"a number reaches beyond its message, or has more than {_BITS} bits")


def _signed(value: int) -> int:
    """Of 64 bits in two's complement."""
    return value - (1 << _BITS) if value >> (_BITS - 1) else value
