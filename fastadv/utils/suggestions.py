"""Suggestions for messages: the known name that is nearest to one that does not exist."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


def nearest(name: str, known: Iterable[str], n: int = 1) -> list[str]:
    """At most ``n`` known names that are spelled like ``name``, the most alike first; case and hyphens do not count."""
    by_spelling = {_spelled(one): one for one in reversed(list(known))}
    return [by_spelling[close] for close in difflib.get_close_matches(_spelled(name), by_spelling, n=n)]


def _spelled(name: str) -> str:
    return name.lower().replace("-", "_")


def did_you_mean(names: Sequence[str]) -> str:
    """`` (did you mean a or b?)``, with the space before it; nothing without names."""
    return f" (did you mean {' or '.join(names)}?)" if names else ""
