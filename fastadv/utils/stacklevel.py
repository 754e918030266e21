"""Where in the user's own code a warning belongs."""

from __future__ import annotations

import sys


def user_stacklevel() -> int:
    """The ``stacklevel``, for the function that asks, of the first frame outside this package."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals["__name__"].startswith("fastadv."):
        level, frame = level + 1, frame.f_back
    return level
