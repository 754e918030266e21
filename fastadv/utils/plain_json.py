"""Reads untrusted JSON into dataclasses, and checks the type of every field."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")


def parse_json(text: str | bytes) -> Any:
    """Parse JSON.

    Raises:
        ValueError: if the text is not JSON, or is nested too deeply.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def build_dataclass(kind: type[T], values: Any, path: str = "") -> T:
    """Create a dataclass, and those nested in it, from mappings; fields with a default may be missing.

    Args:
        kind: the dataclass.
        values: its fields.
        path: prefix of field names in messages.

    Raises:
        ValueError: if ``values`` is not a mapping, or a field is missing, unknown or of the wrong type.
    """
    if not isinstance(values, Mapping):
        raise ValueError(f"{path.rstrip('.') or 'the whole'} must map fields to values, got {type(values).__name__}")
    hints = get_type_hints(kind)
    known = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    if unknown := [name for name in values if name not in known]:
        raise ValueError(f"there is no field {path + str(unknown[0])!r}")
    given = {name: _field(value, hints[name], f"{path}{name}") for name, value in values.items()}
    try:
        return kind(**given)
    except TypeError as error:  # a field is missing
        raise ValueError(str(error)) from error


def _field(value: Any, hint: Any, name: str) -> Any:
    if is_dataclass(hint):
        return build_dataclass(hint, value, f"{name}.")  # type: ignore[arg-type]
    if not _fits(value, hint):
        raise ValueError(f"{name} cannot be {_short(value)}")
    return value


def _fits(value: Any, hint: Any) -> bool:
    """True if a value has the type of a field."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        return value in arguments
    if origin in (Union, UnionType):
        return any(_fits(value, one) for one in arguments)
    if origin is not None and issubclass(origin, Mapping):
        return isinstance(value, dict) and all(_fits(one, arguments[1]) for one in value.values())
    if origin is not None and issubclass(origin, Sequence):
        return isinstance(value, list) and all(_fits(one, arguments[0]) for one in value)
    if hint is Any or hint is NoneType:
        return hint is Any or value is None
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 2**63
    if hint is float:
        return number and math.isfinite(value)
    return number and isinstance(value, int) if hint is int else isinstance(value, hint)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]}..."
