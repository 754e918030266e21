"""How messages name many things."""

from __future__ import annotations

from collections.abc import Sequence


def few(names: Sequence[str], most: int = 5) -> str:
    """The first of them, and how many more there are: ``a, b, c, d, e and 7 more``."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
