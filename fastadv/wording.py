"""How messages name many things."""

from __future__ import annotations

from collections.abc import Sequence


def counted(number: int, one: str) -> str:
    """``1 process``, ``2 processes``; ``1 file``, ``1,000 files``."""
    return f"{number:,} {one}" + ("" if number == 1 else "es" if one.endswith("s") else "s")


def few(names: Sequence[str], most: int = 5) -> str:
    """The first of them, and how many more there are: ``a, b, c, d, e and 7 more``."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def hours(seconds: float) -> str:
    """As people say it: 40 s, 12 min, 1.5 h, 3 d."""
    for unit, size, most in (("s", 1, 90), ("min", 60, 90), ("h", 3600, 72)):
        if seconds < most * size:
            return f"{seconds / size:.1f} {unit}" if unit == "h" else f"{seconds / size:.0f} {unit}"
    return f"{seconds / 86400:,.0f} d"


def readable(text: str) -> str:
    """A word of the command line, or a file's name, that can be written to any file: its bytes read as UTF-8.

    Where the locale does not know a byte, Python has a surrogate in its place, which no encoding takes. What is not
    UTF-8 either is escaped.
    """
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
