"""Formats text for messages: printable names, lists, counts and durations."""

from __future__ import annotations

from collections.abc import Sequence

_LONE_BYTES = range(0xDC80, 0xDD00)  # what Python makes of bytes in a file's name that are not UTF-8


def printable(text: str) -> str:
    r"""Make untrusted text, such as a file name, printable on one line.

    Escapes, as in ``\x1b``, control characters, line ends, invisible characters, characters that change the direction
    of text, and bytes that are not UTF-8, which streams cannot encode.
    """
    return "".join(one if one.isprintable() else _escaped(one) for one in text)


def printable_lines(text: object) -> str:
    """Make a message of one or more lines printable, each like :func:`printable`."""
    return "\n".join(map(printable, str(text).split("\n")))


def _escaped(character: str) -> str:
    code = ord(character)
    return f"\\x{code - 0xDC00:02x}" if code in _LONE_BYTES else character.encode("unicode_escape").decode("ascii")


def counted(number: int, one: str) -> str:
    """Format a count with its noun: ``1 process``, ``2 processes``; ``1 file``, ``1,000 files``."""
    return f"{number:,} {one}" + ("" if number == 1 else "es" if one.endswith("s") else "s")


def few(names: Sequence[str], most: int = 5) -> str:
    """Join the first names and count the rest: ``a, b, c, d, e and 7 more``; all printable."""
    return ", ".join(map(printable, names[:most])) + (f" and {len(names) - most} more" if len(names) > most else "")


def duration(seconds: float) -> str:
    """Format a duration for people: 40 s, 12 min, 1.5 h, 3 d."""
    for unit, size, most in (("s", 1, 90), ("min", 60, 90), ("h", 3600, 72)):
        if seconds < most * size:
            return f"{seconds / size:.1f} {unit}" if unit == "h" else f"{seconds / size:.0f} {unit}"
    return f"{seconds / 86400:,.0f} d"


def as_utf8(text: str) -> str:
    """Decode a command-line word or file name as UTF-8, so that it can be written to a file.

    For bytes that the locale cannot decode, Python has surrogates, which no encoding accepts. Bytes that are not UTF-8
    either are escaped.
    """
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
