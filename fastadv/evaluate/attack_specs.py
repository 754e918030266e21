"""Parse attacks as given on a command line: a name that options may follow, as in ``pgd:steps=20:alpha=2``."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from fastadv import attacks
from fastadv.attacks.base import no_such_option, options_of

_COMMON = {"eps", "space", "seed", "generator"}  # the same for all attacks of a command


class _AnyModel(nn.Module):
    """Stands in for models that are not loaded yet: it is never run, and has the methods that attacks look for."""

    def forward_with_aux(self, images: Tensor) -> Any:
        raise NotImplementedError


def parse_attack(
    text: str, model: Callable[..., Any] | None = None, *, fast: bool = False
) -> tuple[str, dict[str, Any]]:
    """Return the attack's name and its options; a value that is not JSON is a string.

    Args:
        text: an attack on the command line.
        model: the model to attack, once it is known: some options need a model that returns more than logits.
        fast: add ``fast=True`` if the attack has that option and the text does not set it.

    Raises:
        ValueError: if ``fastadv.attacks.create`` rejects the attack, it steps towards the labels, or a part is not
            OPTION=VALUE.
    """
    name, *parts = text.split(":")
    options = {}
    for part in parts:
        option, equals, value = part.partition("=")
        if not equals:
            raise ValueError(f"an attack's options are written as in pgd:steps=20:alpha=2, got {part!r} in {text!r}")
        if option in _COMMON:
            raise ValueError(f"{option} is the same for all attacks, and cannot be set for one, as in {text!r}")
        options[option] = _value(value)
    if name in attacks.names():
        known = options_of(attacks.get(name))
        if unknown := sorted(options.keys() - known):
            raise ValueError(no_such_option(attacks.get(name), unknown))
    if fast and name in attacks.names() and issubclass(attacks.get(name), attacks.GradientAttack):
        options.setdefault("fast", True)
    try:
        made = attacks.create(name, _AnyModel() if model is None else model, **options)
    except TypeError as error:
        raise ValueError(f"{text}: {error}") from error
    made.true_labels(None)  # raises now what it would raise at the first image
    return name, options


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
