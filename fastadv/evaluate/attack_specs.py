"""Parse attacks as given on a command line: a name that options may follow, as in ``pgd:steps=20:alpha=2``.

An attack of one's own is named by its file or module, and its class: ``path/to/file.py:Mine:steps=20``.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from fastadv import attacks
from fastadv.attacks.base import no_such_option, options_of
from fastadv.utils.user_code import load_named, split_code

CODE = "sha256 of its code"  # in the options of records; no option can have this name

_PYTHON = {"True": True, "False": False, "None": None}
_COMMON = {"eps", "space", "seed", "generator"}  # the same for all attacks of a command


class _AnyModel(nn.Module):
    """Stands in for models that are not loaded yet: it is never run, and has the methods that attacks look for."""

    def forward_with_aux(self, images: Tensor) -> Any:
        raise NotImplementedError


def parse_attack(
    text: str, model: Callable[..., Any] | None = None, *, fast: bool = False, early_stop: bool = False
) -> tuple[str, dict[str, Any]]:
    """Return the attack's name, which :func:`attack_class` takes, and its options.

    Args:
        text: an attack on the command line; an option's value is JSON, or Python's True, False or None, or else a
            string.
        model: the model to attack, once it is known: some options need a model that returns more than logits.
        fast: add ``fast=True`` if the attack has that option and the text does not set it.
        early_stop: add ``early_stop=True`` if the attack follows it and the text does not set it.

    Raises:
        ValueError: if ``fastadv.attacks.create`` rejects the attack, it steps towards the labels, or a part is not
            OPTION=VALUE.
        FileNotFoundError: if the attack is in a file that does not exist.
    """
    name, parts = _split(text)
    kind = attack_class(name)
    options = {}
    for part in parts:
        option, equals, value = part.partition("=")
        if not equals:
            raise ValueError(f"an attack's options are written as in pgd:steps=20:alpha=2, got {part!r} in {text!r}")
        if option in _COMMON:
            raise ValueError(f"{option} is the same for all attacks, and cannot be set for one, as in {text!r}")
        options[option] = _value(value)
    if unknown := sorted(options.keys() - options_of(kind)):
        raise ValueError(no_such_option(kind, unknown))
    if fast and "fold_bn" in options_of(kind):  # which fast turns on, if nothing else; noise has nothing to speed up
        options.setdefault("fast", True)
    if early_stop and takes_early_stop(kind):
        options.setdefault("early_stop", True)
    try:
        made = attacks.create(kind, _AnyModel() if model is None else model, **options)
    except TypeError as error:
        raise ValueError(f"{text}: {error}") from error
    made.true_labels(None)  # raises now what it would raise at the first image
    return name, options


def attack_class(text: str) -> type[attacks.Attack]:
    """Return the class of an attack; options that follow its name are ignored.

    Raises:
        ValueError: if the name is unknown, or does not name an attack in a file or module; or its code raises.
        FileNotFoundError: if there is no such file.
    """
    name, _ = _split(text)
    code = None if name in attacks.names() else split_code(name)
    if code is None:
        return attacks.get(name)
    found = load_named(*code)
    if not (isinstance(found, type) and issubclass(found, attacks.Attack)):
        raise ValueError(f"{name} must be a class that derives from one of fastadv.attacks, got {found!r}")
    if not hasattr(found, "name"):
        raise ValueError(f"{name} has no attribute name, which an attack needs")
    return found


def takes_early_stop(kind: Any) -> bool:
    """True if the option ``early_stop`` makes a difference to a class: not if it always stops early, or never can."""
    if not (isinstance(kind, type) and issubclass(kind, attacks.GradientAttack)):
        return False
    if issubclass(kind, attacks.OneStepAttack):
        return False
    by_option = isinstance(inspect.getattr_static(kind, "stops_early"), property)
    return by_option and kind.run_ is attacks.GradientAttack.run_


def may_stop_early(text: str) -> bool:
    """True for attacks of ``fastadv.attacks.names()`` that stop early or not, as an option says."""
    name = _split(text)[0]
    return name in attacks.names() and takes_early_stop(attacks.get(name))


def stops_early(kind: type[attacks.Attack], options: Mapping[str, Any]) -> bool:
    """True if such an attack leaves an image alone as soon as it is fooled, at an iterate or after a restart."""
    of_class = inspect.getattr_static(kind, "stops_early")
    if isinstance(of_class, bool):
        return of_class
    return options.get("restarts", 1) > 1 or (options.get("early_stop") is True and takes_early_stop(kind))


def recorded_options(text: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that a record names: the attack's, and of one's own code also its sha256.

    So a change to the code is another attack, which is measured again.
    """
    kind = attack_class(text)
    file = inspect.getsourcefile(kind)
    if _split(text)[0] in attacks.names() or file is None:
        return dict(options)
    return {**options, CODE: hashlib.sha256(Path(file).read_bytes()).hexdigest()}


def run_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """The attack's options among those that a record names."""
    return {name: value for name, value in options.items() if name != CODE}


def _split(text: str) -> tuple[str, list[str]]:
    """Split into the name and the parts that follow it; the class of one's own attack belongs to its name."""
    name, *parts = text.split(":")
    if name not in attacks.names() and parts and split_code(f"{name}:{parts[0]}"):
        return f"{name}:{parts[0]}", parts[1:]
    return name, parts


def _value(text: str) -> Any:
    if text in _PYTHON:
        return _PYTHON[text]
    try:
        return json.loads(text)
    except ValueError:
        return text
