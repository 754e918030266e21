"""Attacks as a command line gives them: a name, or a name with options as in ``pgd:steps=20:alpha=2``."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from fastadv import attacks

_NOT_HERE = {"eps", "space", "seed", "generator"}  # given to every attack alike


class _AnyModel(nn.Module):
    """Stands in for models that are not loaded yet: never run, and has the methods that attacks look for."""

    def forward_with_aux(self, images: Tensor) -> Any:
        raise NotImplementedError


def parse_attack(
    text: str, model: Callable[..., Any] | None = None, *, fast: bool = False
) -> tuple[str, dict[str, Any]]:
    """The name and the options; a value is JSON where it can be, and else a string.

    Args:
        text: what the command line says.
        model: what is to be attacked, once it is known: some options ask for a model that has more than logits.
        fast: add ``fast=True`` where an attack has it, unless the text says otherwise.

    Raises:
        ValueError: what ``fastadv.attacks.create`` refuses, or a part that is not OPTION=VALUE.
    """
    name, *parts = text.split(":")
    options = {}
    for part in parts:
        option, equals, value = part.partition("=")
        if not equals:
            raise ValueError(f"an attack's options are written as in pgd:steps=20:alpha=2, got {part!r} in {text!r}")
        if option in _NOT_HERE:
            raise ValueError(f"{option} is the same for all attacks, not an option of one as in {text!r}")
        options[option] = _value(value)
    if fast and name in attacks.names() and issubclass(attacks.get(name), attacks.GradientAttack):
        options.setdefault("fast", True)
    try:
        attacks.create(name, _AnyModel() if model is None else model, **options)
    except TypeError as error:
        raise ValueError(f"{text}: {error}") from error
    return name, options


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
