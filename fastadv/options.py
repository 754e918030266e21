"""Options that have a value of the wrong kind: refused by a line that says what is accepted."""

from __future__ import annotations

import math
from numbers import Real

from torch import Tensor


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


def check_switches(**switches: object) -> None:
    """Refuse what is neither true nor false: the text "false" would count as true.

    Raises:
        ValueError: naming the option.
    """
    for name, value in switches.items():
        if not isinstance(value, bool):
            raise ValueError(f"{name} must be true or false, got {value!r}")


def labels_hint(images: Tensor, labels: Tensor) -> str:
    """What was probably meant by labels that are not [N], one for each of the images [N, C, ...]."""
    if images.dim() == 3:
        return "; make a batch of a single image by images[None]"
    if labels.dim() == 2:
        return f"; pass labels{'.argmax(dim=1), of one-hot rows' if labels.shape[1] > 1 else '.squeeze(1)'}"
    return ""
