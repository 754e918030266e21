"""Suggestions for messages: names similar to an unknown one, and sizes in the right unit."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence


def nearest(name: str, known: Iterable[str], n: int = 1) -> list[str]:
    """Return up to ``n`` known names similar to ``name``, the most similar first, ignoring case and hyphens."""
    by_spelling = {_normalized(one): one for one in reversed(list(known))}
    return [by_spelling[close] for close in difflib.get_close_matches(_normalized(name), by_spelling, n=n)]


def _normalized(name: str) -> str:
    return name.lower().replace("-", "_")


def did_you_mean(names: Sequence[str]) -> str:
    """Return `` (did you mean a or b?)``, with the leading space; "" without names."""
    return f" (did you mean {' or '.join(names)}?)" if names else ""


def unit_scale_hint(value: object) -> str:
    """Return a hint for a size that was given as text such as "8/255"; "" for anything else."""
    fraction = re.fullmatch(r"\s*(\d+\.?\d*)\s*/\s*255\s*", value) if isinstance(value, str) else None
    if fraction is None:
        return ""
    return f": sizes are in pixel values of [0, 255]; {value} on a [0, 1] scale is {fraction[1]} here"
