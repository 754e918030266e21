"""Models by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from torch import nn

from fastadv.models.activations import ReluDecay, create_activation
from fastadv.models.small_cnn import SmallCNN

__all__ = ["ReluDecay", "SmallCNN", "create", "create_activation", "names"]

_BUILDERS: dict[str, Callable[..., nn.Module]] = {"small_cnn": SmallCNN}


def names() -> list[str]:
    """The models that :func:`create` knows."""
    return list(_BUILDERS)


def create(name: str, *, num_classes: int, in_channels: int = 3, **options: Any) -> nn.Module:
    """A freshly initialised model, in training mode, with logits [N, num_classes] for images [N, in_channels, H, W].

    Args:
        name: one of :func:`names`.
        num_classes: number of classes.
        in_channels: channels of the images.
        **options: the model's own, see its class.

    Raises:
        ValueError: an unknown name, an option that the model does not have, or a value out of range.
    """
    if name not in _BUILDERS:
        raise ValueError(f"unknown model {name!r}; accepted: {', '.join(names())}")
    for field, value in (("num_classes", num_classes), ("in_channels", in_channels)):
        if value < 1:
            raise ValueError(f"{field} must be at least 1, got {value}")
    builder = _BUILDERS[name]
    parameters = inspect.signature(builder).parameters
    accepted = [option for option in parameters if option not in ("num_classes", "in_channels")]
    if unknown := [option for option in options if option not in accepted]:
        raise ValueError(f"{name} has no option {', '.join(unknown)}; accepted: {', '.join(accepted)}")
    return builder(num_classes=num_classes, in_channels=in_channels, **options)
