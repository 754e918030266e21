"""Options that have a value of the wrong kind: refused by a line that says what is accepted."""

from __future__ import annotations

import math
from numbers import Real


def is_number(value: object) -> bool:
    """Whether it is a finite number; true and false are none."""
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def check_model(model: object) -> None:
    """Refuse what cannot be called with images.

    Raises:
        TypeError: that; a class is called to create a model, not to run it.
    """
    if isinstance(model, type):
        raise TypeError(f"model must be a module or a callable, got the class {model.__name__}: create it first")
    if not callable(model):
        raise TypeError(f"model must be a module or a callable, got {type(model).__name__}")


def check_dropout(value: object) -> None:
    """Refuse what is no probability.

    Raises:
        ValueError: that.
    """
    if not is_number(value) or not 0 <= value <= 1:  # type: ignore[operator]
        raise ValueError(f"dropout must be a number from 0 to 1, the share of features dropped, got {value!r}")


def check_choice(option: str, value: object, choices: tuple[str, ...]) -> None:
    """Refuse what is none of an option's values.

    Raises:
        ValueError: naming them.
    """
    if value not in choices:
        raise ValueError(f"{option} must be one of {', '.join(choices)}, got {value!r}")


def check_switches(**switches: object) -> None:
    """Refuse what is neither true nor false: the text "false" would count as true.

    Raises:
        ValueError: naming the option.
    """
    for name, value in switches.items():
        if not isinstance(value, bool):
            raise ValueError(f"{name} must be true or false, got {value!r}")


def check_label_smoothing(value: object) -> None:
    """Refuse what is no share of a target that can be spread over all classes.

    Raises:
        ValueError: that.
    """
    if not is_number(value) or not 0 <= value < 1:  # type: ignore[operator]
        raise ValueError(f"label_smoothing must be in [0, 1), got {value!r}")


def check_aux_weight(value: object) -> None:
    """Refuse what is no weight of auxiliary logits.

    Raises:
        ValueError: that.
    """
    if not is_number(value) or value < 0:  # type: ignore[operator]
        raise ValueError(f"aux_weight must be zero or more and finite, got {value!r}")
