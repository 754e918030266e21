"""Convert YAML and command-line options to a TrainConfig, and back, by jsonargparse."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, is_dataclass
from importlib import resources
from itertools import zip_longest
from pathlib import Path
from typing import Any, get_origin, get_type_hints

from fastadv.train.config import TrainConfig, UnusedOptionsError
from fastadv.train.config_errors import ConfigError, check_fields, check_phases_whole, explained, fields_of
from fastadv.train.phases import epochs_clash
from fastadv.train.yaml_text import MOST_CHARACTERS, read_yaml
from fastadv.utils.optional_deps import require
from fastadv.utils.suggestions import did_you_mean, nearest

# --minibatch is longer than --m: torchrun reads the script's options too, and takes --m for an abbreviation of its own.
_SHORT_FORMS = {"data": "--data.root", "download": "--data.download", "minibatch": "--m", "init": "--model.init"}

# --- recipes ---------------------------------------------------------------------------------------------------------


def recipes() -> list[str]:
    """Names of the recipes in the package."""
    folder = resources.files("fastadv.train") / "recipes"
    return sorted(file.name.removesuffix(".yaml") for file in folder.iterdir() if file.name.endswith(".yaml"))


def read_recipe(name: str) -> dict[str, Any]:
    """Read a recipe.

    Args:
        name: one of :func:`recipes`, or the path of a YAML file.

    Raises:
        ConfigError: if there is no such recipe, or it is not YAML.
    """
    file = resources.files("fastadv.train") / "recipes" / f"{name}.yaml" if name in recipes() else Path(name)
    try:
        with file.open(encoding="utf-8") as opened:
            values = read_yaml(opened.read(MOST_CHARACTERS + 1))  # bounded: the file may be endless
    except OSError as error:
        meant = nearest(Path(name).stem, recipes())
        shipped = ", ".join(recipes())
        raise ConfigError(
            f"recipe {name!r} is neither a readable file nor one of {shipped}{did_you_mean(meant)}"
        ) from error
    except ValueError as error:
        raise ConfigError(f"recipe {name!r} is not YAML of a configuration: {error}") from error
    if values is None:
        raise ConfigError(f"recipe {name!r} is empty: it must set a field, such as epochs: 10")
    if not isinstance(values, dict):
        raise ConfigError(f"recipe {name!r} must map fields to values, got {type(values).__name__}")
    return values


# --- values to a TrainConfig and back --------------------------------------------------------------------------------


def create_parser(**options: Any) -> Any:
    """Create a jsonargparse parser with an option for every field of TrainConfig, and its docstring as help."""
    jsonargparse = require("jsonargparse", extra="train")
    require("docstring_parser", extra="train")
    jsonargparse.set_parsing_settings(docstring_parse_attribute_docstrings=True)
    parser = jsonargparse.ArgumentParser(exit_on_error=False, allow_abbrev=False, **options)
    hints = get_type_hints(TrainConfig)
    sections = {name: hint for name, hint in hints.items() if is_dataclass(hint)}
    parser.add_argument_group("training").add_class_arguments(TrainConfig, as_group=False, skip=set(sections))
    for name, section in sections.items():
        group = parser.add_argument_group(name, section.__doc__)
        group.add_class_arguments(section, name, as_group=False)
    return parser


def parse_config(values: Mapping[str, Any], overrides: Sequence[str] = ()) -> TrainConfig:
    """Create a TrainConfig from values, with defaults for the others.

    Args:
        values: nested mapping of fields to values, as in a YAML file.
        overrides: command-line options such as ``["--optimizer.lr", "0.1"]``, which override ``values``.

    Raises:
        ConfigError: if a field is unknown or a value is invalid.
    """
    return build_config(parse_options(create_parser(), values, overrides))


def parse_options(parser: Any, values: Mapping[str, Any], arguments: Sequence[str]) -> dict[str, Any]:
    """Parse ``arguments`` on top of ``values`` into a nested dict; ``parser`` may have further options.

    ``--help`` shows ``values`` as the defaults.

    Raises:
        ConfigError: if a field or option is unknown, or a value has the wrong type.
    """
    check_fields(values)
    check_phases_whole(arguments)
    try:
        parser.set_defaults(dict(parser.parse_object(dict(values)).items()))
        options: dict[str, Any] = parser.parse_args(_expanded(arguments)).as_dict()
    except argparse.ArgumentError as error:
        raise explained(error, list(parser.get_defaults().keys())) from error
    given = {argument.partition("=")[0] for argument in arguments}
    if "--epochs" not in given and options["phases"] and given & {"--phases", "--phases+"}:
        del options["epochs"]  # a recipe's, without the phases
    elif "epochs" in values or "--epochs" in given:
        _check_epochs(options["epochs"], options["phases"])
    return options


def _check_epochs(epochs: int, phases: Sequence[Any]) -> None:
    """Check epochs that were given against those of the phases: a TrainConfig cannot know that its default was given.

    Raises:
        ConfigError: if they are not the sum.
    """
    given = [phase.get("epochs") for phase in phases if isinstance(phase, Mapping)]
    lengths = [length for length in given if isinstance(length, int)]
    if phases and len(lengths) == len(phases) and epochs != sum(lengths):
        raise ConfigError(epochs_clash(epochs, sum(lengths)))


def _expanded(arguments: Sequence[str]) -> list[str]:
    """Expand short forms and hyphens, add the value to a true/false option that has none, and join a list's values."""
    written = _with_joined_lists([_full_option(argument) for argument in arguments])
    switches = {f"--{name}" for name, hint in fields_of(TrainConfig) if hint is bool}
    return [
        f"{argument}=true" if argument in switches and after.startswith("--") else argument
        for argument, after in zip_longest(written, written[1:], fillvalue="--")
    ]


def _with_joined_lists(arguments: Sequence[str]) -> list[str]:
    """Join the values that follow an option for a list: ``--attack.sources A B`` becomes one argument in JSON."""
    lists = {f"--{name}" for name, hint in fields_of(TrainConfig) if get_origin(hint) is list}
    joined: list[str] = []
    left = list(arguments)
    while left:
        option = left.pop(0)
        values: list[str] = []
        while option in lists and left and not left[0].startswith("--"):
            values.append(left.pop(0))
        written_as_list = len(values) == 1 and values[0].startswith("[")
        joined.append(f"{option}={values[0] if written_as_list else json.dumps(values)}" if values else option)
    return joined


def _full_option(argument: str) -> str:
    """Expand an option's short form or hyphens: --data and --checkpoint-every are easier to type."""
    if not argument.startswith("--"):
        return argument
    option, equals, value = argument[2:].partition("=")
    return _SHORT_FORMS.get(option, "--" + option.replace("-", "_")) + equals + value


def build_config(values: Mapping[str, Any]) -> TrainConfig:
    """Build a TrainConfig from parsed values; unknown keys are ignored.

    Raises:
        ConfigError: if a value is out of range.
    """
    try:
        config: TrainConfig = _build(TrainConfig, values)
    except UnusedOptionsError as error:
        back = " ".join(f"--{name} {value}" for name, value in error.defaults.items())
        them = "it" if len(error.defaults) == 1 else "them"
        raise ConfigError(f"{error}, or, where the recipe sets {them}, go back to the default by {back}") from error
    except ValueError as error:
        raise ConfigError(str(error)) from error
    return config


def dump_config(config: TrainConfig) -> str:
    """Write a TrainConfig as YAML that :func:`parse_config` turns into the same TrainConfig."""
    text: str = require("yaml", extra="train").safe_dump(asdict(config), sort_keys=False)
    return text


def flat(values: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """Flatten nested mappings, such as a configuration, to dotted names."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        found.update(flat(value, f"{path}{name}.") if isinstance(value, dict) else {f"{path}{name}": value})
    return found


def _build(kind: Any, values: Mapping[str, Any]) -> Any:
    hints = get_type_hints(kind)
    given = {field.name: values[field.name] for field in fields(kind) if field.name in values}
    return kind(**{k: _build(hints[k], v) if is_dataclass(hints[k]) else v for k, v in given.items()})
