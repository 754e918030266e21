"""The words of messages: names as they can be printed, lists of them, counts and times."""

from __future__ import annotations

from collections.abc import Sequence

_LONE_BYTES = range(0xDC80, 0xDD00)  # what Python makes of bytes in a file's name that are not UTF-8


def printable(text: str) -> str:
    r"""Text that others chose, such as a file's name, as it can be printed in a line.

    Control characters, which a terminal obeys, ends of lines, characters without a shape and those that turn the order
    of others round are escaped, as in ``\x1b``; so are bytes that are not UTF-8, which no stream would encode.
    """
    return "".join(one if one.isprintable() else _escaped(one) for one in text)


def printable_lines(text: object) -> str:
    """A message as it can be printed, of one line or more; within a line like :func:`printable`."""
    return "\n".join(map(printable, str(text).split("\n")))


def _escaped(character: str) -> str:
    code = ord(character)
    return f"\\x{code - 0xDC00:02x}" if code in _LONE_BYTES else character.encode("unicode_escape").decode("ascii")


def counted(number: int, one: str) -> str:
    """``1 process``, ``2 processes``; ``1 file``, ``1,000 files``."""
    return f"{number:,} {one}" + ("" if number == 1 else "es" if one.endswith("s") else "s")


def few(names: Sequence[str], most: int = 5) -> str:
    """The first of them, and how many more there are: ``a, b, c, d, e and 7 more``; as they can be printed."""
    return ", ".join(map(printable, names[:most])) + (f" and {len(names) - most} more" if len(names) > most else "")


def duration(seconds: float) -> str:
    """As people say it: 40 s, 12 min, 1.5 h, 3 d."""
    for unit, size, most in (("s", 1, 90), ("min", 60, 90), ("h", 3600, 72)):
        if seconds < most * size:
            return f"{seconds / size:.1f} {unit}" if unit == "h" else f"{seconds / size:.0f} {unit}"
    return f"{seconds / 86400:,.0f} d"


def as_utf8(text: str) -> str:
    """A word of the command line, or a file's name, that can be written to any file: its bytes read as UTF-8.

    Where the locale does not know a byte, Python has a surrogate in its place, which no encoding takes. What is not
    UTF-8 either is escaped.
    """
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
