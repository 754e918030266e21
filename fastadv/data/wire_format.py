"""Protobuf's wire format, read in place, since a parser that makes objects cannot say where they lie in the file.

Every read is bounded by the message that it belongs to, and takes time in proportion to what is read.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

_VARINT, _EIGHT_BYTES, _LENGTH, _FOUR_BYTES = 0, 1, 2, 5  # wire types; 3 and 4 are groups, which are out of use
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
        """Its bytes."""
        return self._bytes(self.start, self.size)

    def fields(self) -> Iterator[tuple[int, int | Part | None]]:
        """Of the message, the number and the content of each field: an integer, a part, or None for a float's bytes.

        Raises:
            ValueError: a field reaches beyond its message, or is of an unknown kind.
        """
        at = self.start
        while at < self.end:
            tag, at = self._varint(at)
            number, kind = tag >> 3, tag & 7
            if kind == _VARINT:
                value, at = self._varint(at)
                yield number, value
                continue
            size, at = self._length(kind, at)
            if size > self.end - at:
                raise ValueError(f"a field at byte {at} reaches beyond its message")
            yield number, Part(self.file, at, at + size) if kind == _LENGTH else None
            at += size

    def parts(self, number: int) -> Iterator[Part]:
        """The fields of this number, each of which must have a length of its own, as messages and bytes have.

        Raises:
            ValueError: one has not; or as for :meth:`fields`.
        """
        for found, content in self.fields():
            if found == number:
                if not isinstance(content, Part):
                    raise ValueError(f"field {number} of the message at byte {self.start} is a number, and may not be")
                yield content

    def integers(self, number: int) -> Iterator[int]:
        """The values of a repeated int64, packed or not.

        Raises:
            ValueError: as for :meth:`fields`, or the field is no integer.
        """
        for found, content in self.fields():
            if found != number:
                continue
            if content is None:
                raise ValueError(f"field {number} of the message at byte {self.start} is no integer, and must be")
            yield from map(_signed, content._packed() if isinstance(content, Part) else [content])

    def _packed(self) -> Iterator[int]:
        at = self.start
        while at < self.end:
            value, at = self._varint(at)
            yield value

    def _length(self, kind: int, at: int) -> tuple[int, int]:
        """How long a field of this wire type is, and where it begins."""
        if kind == _LENGTH:
            return self._varint(at)
        if kind in (_EIGHT_BYTES, _FOUR_BYTES):
            return 8 if kind == _EIGHT_BYTES else 4, at
        raise ValueError(f"a field of wire type {kind} at byte {at}, which no example has")

    def _varint(self, at: int) -> tuple[int, int]:
        """The number that begins here, and where it ends: seven bits a byte, lowest first."""
        value = 0
        for place, byte in enumerate(self._bytes(at, min(_LONGEST, self.end - at))):
            value |= (byte & 0x7F) << 7 * place
            if byte < 0x80:
                if value >> _BITS:
                    break
                return value, at + place + 1
        raise ValueError(f"a number at byte {at} reaches beyond its message, or has more than {_BITS} bits")

    def _bytes(self, at: int, size: int) -> bytes:
        self.file.seek(at)
        found = self.file.read(size)
        if len(found) < size:
            raise ValueError(f"the file ends at byte {at + len(found)}, within a message")
        return found


def _signed(value: int) -> int:
    """Of 64 bits in two's complement."""
    return value - (1 << _BITS) if value >> (_BITS - 1) else value
