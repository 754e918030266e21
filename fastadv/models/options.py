"""Options of the networks of this package: values out of range are refused by a line that says which are not."""

from __future__ import annotations

import math


def is_number(value: object) -> bool:
    """Whether it is a finite number; true and false are none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def check_dropout(value: object) -> None:
    """Refuse what is no probability.

    Raises:
        ValueError: that.
    """
    if not is_number(value) or not 0 <= value <= 1:  # type: ignore[operator]
        raise ValueError(f"dropout must be a number from 0 to 1, the share of features dropped, got {value!r}")


def check_switches(**switches: object) -> None:
    """Refuse what is neither true nor false.

    Raises:
        ValueError: naming the option.
    """
    for name, value in switches.items():
        if not isinstance(value, bool):
            raise ValueError(f"{name} must be true or false, got {value!r}")
