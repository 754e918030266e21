"""Finds the line of the user's code that a warning should point at."""

from __future__ import annotations

import sys


def user_stacklevel() -> int:
    """Return the ``stacklevel``, seen from the calling function, of the first frame outside this package."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals["__name__"].startswith("fastadv."):
        level, frame = level + 1, frame.f_back
    return level
