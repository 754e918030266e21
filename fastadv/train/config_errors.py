"""Mistakes in a configuration: messages that name the field and what was probably meant."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import is_dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints

from fastadv.data.config import DataConfig
from fastadv.train.config import TrainConfig
from fastadv.utils.suggestions import did_you_mean, nearest, unit_scale_hint

_WORDS_OF_OTHERS = {"batch_size": "m", "learning_rate": "optimizer.lr", "dataset": "data.name"}
_WORDS_OF_TYPES = {float: "a number", int: "an integer", bool: "true or false", str: "text", type(None): "null"}

# Fields of DataConfig: of images in files alone; for each data set what it does not use, and what was probably meant.
_OF_FILES = (
    *("size", "least_area", "widest_aspect", "colour", "central", "keep_aspect", "interpolation"),
    *("loader", "workers", "prefetch", "on_bad_image"),
)
_UNUSED = {"digits": ("root", "download", *_OF_FILES), "imagenet": ("crop_padding",)}
_MEANT = {
    "digits": "images in files are --data.name imagenet; other sets in folders are mnist, fashion_mnist, cifar10",
    "imagenet": "data.least_area and data.widest_aspect say how its images are cut",
}


class ConfigError(ValueError):
    """A configuration that cannot be used; the message names the field and what it accepts."""


def fields_of(kind: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """The dotted name and the type of each field of a dataclass and of those in it."""
    for name, hint in get_type_hints(kind).items():
        if is_dataclass(hint):
            yield from fields_of(hint, f"{path}{name}.")
        else:
            yield f"{path}{name}", hint


def check_fields(values: Mapping[str, Any], kind: Any = TrainConfig, path: str = "") -> None:
    """Refuse unknown fields, and null where it is no value: jsonargparse names no alternative, and lets null through.

    Raises:
        ConfigError: naming the field.
    """
    hints = get_type_hints(kind)
    for name, value in values.items():
        if name not in hints:
            meant = _nearest_field(str(name), dict(fields_of(TrainConfig)))
            raise ConfigError(f"unknown field {path}{name}{did_you_mean(meant)}; accepted: {', '.join(hints)}")
        if is_dataclass(hints[name]):
            if not isinstance(value, Mapping):
                raise ConfigError(f"{path}{name} must map fields to values, got {value!r}")
            check_fields(value, hints[name], f"{path}{name}.")
        elif value is None and type(None) not in get_args(hints[name]):
            raise ConfigError(f"{path}{name} must not be null: leave it out for its default")


def check_used(data: DataConfig) -> None:
    """Refuse values, other than the defaults, that the data set has no use for: they were meant for another one.

    Raises:
        ConfigError: naming the fields and what to change.
    """
    default = DataConfig()
    candidates = _UNUSED.get(data.name, _OF_FILES)
    unused = [f"data.{name}" for name in candidates if getattr(data, name) != getattr(default, name)]
    if unused:
        meant = _MEANT.get(data.name, "images in files are --data.name imagenet")
        raise ConfigError(f"data.name {data.name} does not use {', '.join(unused)}: {meant}")


def explained(error: Exception, known: Collection[str]) -> ConfigError:
    """An error of the parser in one line, with the option that was meant, or with the type that the field has.

    Args:
        error: jsonargparse's.
        known: the parser's options, without their ``--``.
    """
    text = " ".join(str(error).split())
    unknown = re.match(r"unrecognized arguments: --([\w.]+)", text)
    if unknown:
        meant = _nearest_field(unknown[1], known)
        suggestion = did_you_mean([f"--{name}" for name in meant])
        return ConfigError(f"unknown option --{unknown[1]}{suggestion}; fastadv train --help lists them all")
    wrong, types = re.match(r'Parser key "([\w.]+)": .*value: (.*)', text), dict(fields_of(TrainConfig))
    if not wrong or wrong[1] not in types:
        return ConfigError(text)
    field, value = wrong.groups()
    return ConfigError(f"{field} must {_accepting(types[field], field)}, got {value!r}{unit_scale_hint(value)}")


def _accepting(kind: Any, field: str) -> str:
    """What a field of a type must be, in the configuration's own words."""
    if get_origin(kind) is Literal:
        return f"be one of {', '.join(get_args(kind))}"
    if get_origin(kind) is dict:
        return f"map options to values, as --{field}.NAME VALUE does for one"
    return "be " + " or ".join(_WORDS_OF_TYPES.get(one, str(one)) for one in get_args(kind) or (kind,))


def _nearest_field(name: str, known: Collection[str]) -> list[str]:
    """The known dotted name that was most likely meant: a section's ``name``, or the same last part in any section."""
    by_last_part = {field.rpartition(".")[2]: field for field in reversed(list(known))} | _WORDS_OF_OTHERS
    if f"{name}.name" in known:
        return [f"{name}.name"]
    return [by_last_part[close] for close in nearest(name.rpartition(".")[2], by_last_part)]
