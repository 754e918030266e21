"""Error messages for configurations: they name the field and suggest what was probably meant."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import is_dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints

from fastadv.data.config import DataConfig
from fastadv.train.config import TrainConfig
from fastadv.utils.suggestions import did_you_mean, nearest, unit_scale_hint

_PHASES = "such as --phases '[{epochs: 4, data: {size: 64}}, {epochs: 2}]'"
_USUAL_NAMES = {"batch_size": "m", "learning_rate": "optimizer.lr", "dataset": "data.name"}
_WORDS_OF_TYPES = {float: "a number", int: "an integer", bool: "true or false", str: "text", type(None): "null"}

# Fields of DataConfig: for images in files only; those that a data set does not use, and what to use instead.
_FOR_FILES = (
    *("size", "least_area", "widest_aspect", "colour", "central", "keep_aspect", "interpolation"),
    *("loader", "workers", "prefetch", "on_bad_image"),
)
_UNUSED = {"digits": ("root", "download", *_FOR_FILES), "imagenet": ("crop_padding",)}
_INSTEAD = {
    "digits": "images in files are --data.name imagenet; other sets in folders are mnist, fashion_mnist, cifar10",
    "imagenet": "data.least_area and data.widest_aspect say how its images are cut",
}


class ConfigError(ValueError):
    """A configuration is invalid; the message names the field and what it accepts."""


def fields_of(kind: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted name and type of each field of a dataclass and of the dataclasses in it."""
    for name, hint in get_type_hints(kind).items():
        if is_dataclass(hint):
            yield from fields_of(hint, f"{path}{name}.")
        else:
            yield f"{path}{name}", hint


def check_fields(values: Mapping[str, Any], kind: Any = TrainConfig, path: str = "") -> None:
    """Check for unknown fields, and for null where it is not accepted.

    jsonargparse suggests no alternatives, and accepts null everywhere.

    Raises:
        ConfigError: if there are any; names the field.
    """
    hints = get_type_hints(kind)
    for name, value in values.items():
        if name not in hints:
            meant = _nearest_field(f"{path}{name}", dict(fields_of(TrainConfig)))
            raise ConfigError(f"unknown field {path}{name}{did_you_mean(meant)}; accepted: {', '.join(hints)}")
        if is_dataclass(hints[name]):
            if not isinstance(value, Mapping):
                raise ConfigError(f"{path}{name} must map fields to values, got {value!r}")
            check_fields(value, hints[name], f"{path}{name}.")
        elif value is None and type(None) not in get_args(hints[name]):
            raise ConfigError(f"{path}{name} must not be null: leave it out for its default")


def check_used(data: DataConfig) -> None:
    """Check that no option is set that the data set does not use: it was meant for another one.

    Raises:
        ConfigError: if there are any; names the fields and what to change.
    """
    default = DataConfig()
    candidates = _UNUSED.get(data.name, _FOR_FILES)
    unused = [f"data.{name}" for name in candidates if getattr(data, name) != getattr(default, name)]
    if unused:
        meant = _INSTEAD.get(data.name, "images in files are --data.name imagenet")
        raise ConfigError(f"data.name {data.name} does not use {', '.join(unused)}: {meant}")


def check_phases_whole(arguments: Iterable[str]) -> None:
    """Check that no option is for a part of the phases: the parser would change the last one's.

    Raises:
        ConfigError: if one is.
    """
    for argument in arguments:
        if argument.startswith("--phases."):
            option = argument.partition("=")[0]
            raise ConfigError(f"{option} is no option: phases are given as a whole, {_PHASES}")


def explained(error: Exception, known: Collection[str]) -> ConfigError:
    """Turn an error of jsonargparse into one line that suggests an option, or says what the field accepts.

    Args:
        error: the parser's error.
        known: the parser's options, without ``--``.
    """
    text = " ".join(str(error).split())
    unknown = re.match(r"unrecognized arguments: --([\w.]+)", text)
    if unknown:
        section, _, name = unknown[1].rpartition(".")
        of_attack = section == "attack" and name in ("alpha", "noise", "start", "steps")  # often looked for there
        meant = [f"attack.options.{name}"] if of_attack else _nearest_field(unknown[1], known)
        suggestion = did_you_mean([f"--{name}" for name in meant])
        return ConfigError(f"unknown option --{unknown[1]}{suggestion}; fastadv train --help lists them all")
    wrong, types = re.match(r'Parser key "([\w.]+)": .*value: (.*)', text), dict(fields_of(TrainConfig))
    if not wrong or wrong[1] not in types:
        return ConfigError(text)
    field, value = wrong.groups()
    near = did_you_mean(nearest(value, get_args(types[field]))) if get_origin(types[field]) is Literal else ""
    return ConfigError(f"{field} must {_accepting(types[field], field)}, got {value!r}{near}{unit_scale_hint(value)}")


def _accepting(kind: Any, field: str) -> str:
    """What a field of this type must be, in words."""
    if get_origin(kind) is Literal:
        return f"be one of {', '.join(get_args(kind))}"
    if get_origin(kind) is dict:
        return f"map options to values, as --{field}.NAME VALUE does for one"
    if get_origin(kind) is list:
        return f"be a list of phases, {_PHASES}" if field == "phases" else f"be a list, as in --{field} A B"
    return "be " + " or ".join(_WORDS_OF_TYPES.get(one, str(one)) for one in get_args(kind) or (kind,))


def _nearest_field(name: str, known: Collection[str]) -> list[str]:
    """The known dotted name that was most likely meant.

    It is a section's ``name`` for the section itself; else the nearest field of the section that was given, or of the
    section nearest to it; else the fields of any section with the nearest last part.
    """
    if f"{name}.name" in known:
        return [f"{name}.name"]
    section, _, last = name.rpartition(".")
    sections = {field.rpartition(".")[0] for field in known} - {""}
    for near in nearest(section, sections):
        if found := nearest(last, [field.rpartition(".")[2] for field in known if field.startswith(f"{near}.")]):
            return [f"{near}.{found[0]}"]
    by_last_part: dict[str, list[str]] = {word: [field] for word, field in _USUAL_NAMES.items()}
    for field in known:
        by_last_part.setdefault(field.rpartition(".")[2], []).append(field)
    return [field for close in nearest(last, by_last_part) for field in by_last_part[close]]
