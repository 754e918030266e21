"""Checks option values; each error has the option, what it accepts and what was given."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Integral, Real

from fastadv.utils.suggestions import did_you_mean, nearest


def is_number(value: object) -> bool:
    """True for finite real numbers; bools are excluded."""
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def is_integer(value: object) -> bool:
    """True for integers of any type; bools are excluded."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def check_integer(name: str, value: object, *, least: int, most: float = math.inf) -> None:
    """Raise ValueError unless ``value`` is an integer in [least, most]."""
    if not is_integer(value) or not least <= value <= most:  # type: ignore[operator]
        upper = "" if most == math.inf else f" and at most {most}"
        raise ValueError(f"{name} must be an integer of at least {least}{upper}, got {value!r}")


def check_count(name: str, value: object, *, least: int) -> None:
    """Check an argument of a call: raise TypeError unless it is an integer, ValueError if it is less than ``least``."""
    if not is_integer(value):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    if value < least:  # type: ignore[operator]
        raise ValueError(f"{name} must be at least {least}, got {value}")


def check_real(
    name: str,
    value: object,
    *,
    least: float = -math.inf,
    above: float = -math.inf,
    below: float = math.inf,
    most: float = math.inf,
) -> None:
    """Raise ValueError unless ``value`` is a finite number within the bounds; give one bound on each side."""
    if not is_number(value) or not (least <= value <= most and above < value < below):  # type: ignore[operator]
        limits = {"at least": least, "above": above, "below": below, "at most": most}
        bounds = [f"{word} {limit:g}" for word, limit in limits.items() if math.isfinite(limit)]
        raise ValueError(f"{name} must be a number {' and '.join(bounds)}, got {value!r}")


def check_one_of(name: str, value: object, accepted: Sequence[str]) -> None:
    """Raise ValueError unless ``value`` is one of ``accepted``; the message suggests the nearest."""
    if value not in accepted:
        meant = did_you_mean(nearest(value, accepted)) if isinstance(value, str) else ""
        raise ValueError(f"{name} must be one of {', '.join(accepted)}, got {value!r}{meant}")


def check_switches(**switches: object) -> None:
    """Raise ValueError unless every value is True or False: the text "false" would count as true."""
    for name, value in switches.items():
        if not isinstance(value, bool):
            raise ValueError(f"{name} must be true or false, got {value!r}")


def check_model(model: object) -> None:
    """Raise TypeError unless ``model`` can be called with images; a class creates a model and does not run it."""
    if isinstance(model, type):
        raise TypeError(f"model must be a module or a callable, got the class {model.__name__}: create it first")
    if not callable(model):
        raise TypeError(f"model must be a module or a callable, got {type(model).__name__}")


def check_dropout(value: object) -> None:
    """Raise ValueError unless ``value`` is in [0, 1]."""
    check_real("dropout", value, least=0, most=1)


def check_label_smoothing(value: object) -> None:
    """Raise ValueError unless ``value`` is in [0, 1)."""
    check_real("label_smoothing", value, least=0, below=1)


def check_aux_weight(value: object) -> None:
    """Raise ValueError unless ``value``, the weight of a loss at auxiliary logits, is zero or more."""
    check_real("aux_weight", value, least=0)
