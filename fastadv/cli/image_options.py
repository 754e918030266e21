"""How the models of a command are shown the images, all of them in one way.

A network that is shown images of another size, or normalised in another way, than in its training is less accurate, and
nothing fails. So what is not known of a network from a file is asked for, and what is used is said.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from fastadv import data
from fastadv.data.config import DataConfig
from fastadv.models import library_of
from fastadv.models.known_input import DATA_OPTIONS, SYMMETRIC, KnownInput, size_hint
from fastadv.pixels import PixelSpace
from fastadv.utils.log import logger


def one_way(
    config: DataConfig,
    runs: Mapping[str, DataConfig],
    files: Mapping[str, KnownInput],
    networks: Mapping[str, str],
    options: argparse.Namespace,
) -> DataConfig:
    """How images in files are shown to all models.

    Args:
        config: of the data set; the rest of it stays.
        runs: how each run was shown them, by the name of its row.
        files: what is known of each model from a file, by the name of its row.
        networks: of these, for a hint.
        options: those of the command that are named in ``DATA_OPTIONS``, None where they were not given.

    Raises:
        ValueError: a size that is not known, or models that are shown images in different ways.
    """
    given = {name: value for name in DATA_OPTIONS if (value := getattr(options, name)) is not None}
    ways = {name: {way: getattr(run, way) for way in DATA_OPTIONS} for name, run in runs.items()}
    for name, run in ways.items():
        if unlike := [way for way in given if given[way] != run[way]]:
            raise ValueError(
                f"{_option(unlike[0], given[unlike[0]])} is for models from files alone: {name} is shown images "
                f"with data.{unlike[0]} {run[unlike[0]]}"
            )
    ways |= {name: {**known.data_options(), **given} for name, known in files.items()}
    _check_known(ways, networks)
    values = {way: {name: of_one[way] for name, of_one in ways.items() if way in of_one} for way in DATA_OPTIONS}
    if differing := {way: shown for way, shown in values.items() if len({*shown.values()}) > 1}:
        raise ValueError(_in_different_ways(differing, runs))
    return replace(config, **{way: next(iter(shown.values())) for way, shown in values.items() if shown})


def _in_different_ways(differing: Mapping[str, Mapping[str, Any]], runs: Mapping[str, DataConfig]) -> str:
    """A message that has the options with which models from files join the others."""
    shown = "; ".join(
        ", ".join(f"{way} {value} for {name}" for name, value in values.items()) for way, values in differing.items()
    )
    of_runs = {way: {getattr(run, way) for run in runs.values()} for way in differing}
    or_given = ""
    if not runs:
        options = " ".join("--[no-]keep-aspect" if way == "keep_aspect" else _option(way) for way in differing)
        or_given = f", or give {options}"
    elif all(len(values) == 1 for values in of_runs.values()):
        options = " ".join(_with_value(way, value) for way, values in of_runs.items() for value in values)
        or_given = f", or give {options} as the {'run has' if len(runs) == 1 else 'runs have'} it"
    return (
        f"models that are shown images in different ways cannot share a table: {shown}; name those alone that are "
        f"shown them in the same way{or_given}"
    )


def _option(way: str, value: object = None) -> str:
    """The name of an option; of a switch the one for a value."""
    name = way.replace("_", "-")
    return f"--no-{name}" if value is False else f"--{name}"


def _with_value(way: str, value: object) -> str:
    return _option(way, value) + ("" if isinstance(value, bool) else f" {value}")


def _check_known(ways: Mapping[str, Mapping[str, Any]], networks: Mapping[str, str]) -> None:
    unknown = [name for name, of_one in ways.items() if "size" not in of_one]
    if unknown:
        raise ValueError(
            f"--size is needed for {', '.join(unknown)}: of how many pixels a side were the images that the weights "
            f"were trained on?{size_hint(networks[unknown[0]])}"
        )


def check_in_memory(
    images: data.ImageSet, name: str, files: Mapping[str, KnownInput], options: argparse.Namespace
) -> None:
    """Refuse options that images in memory have no use for; warn of models that were trained on another size.

    Raises:
        ValueError: such an option.
    """
    if given := [_option(way, value) for way in DATA_OPTIONS if (value := getattr(options, way)) is not None]:
        raise ValueError(
            f"{', '.join(given)}: this is for images in files, and those of {name} have a size of their own"
        )
    height, width = images.images.shape[2:]
    for row, known in files.items():
        if known.size not in (None, height, width):
            logger.warning(
                "%s was trained on images of %d px, and those of %s are %d x %d: it may be less accurate for that",
                *(row, known.size, name, height, width),
            )


def say(name: str, network: str, known: KnownInput, space: PixelSpace, config: DataConfig, *, in_files: bool) -> None:
    """A line on how a model from a file is shown the images, and one for each thing that may differ from training."""
    shown = f"images of {config.preprocessing.shown}, " if in_files else ""
    logger.info("%s: %s%s%s", name, shown, space, f"; from {known.source}" if known.source else "")
    used = {way: getattr(config, way) for way in DATA_OPTIONS} if in_files else {}
    differing = [f"{way} {value}" for way, value in known.data_options().items() if way in used and used[way] != value]
    differing += [str(known.space)] if known.space and not _alike(known.space, space) else []
    differing += [known.unsupported] if known.unsupported and in_files else []
    if differing:
        logger.warning("%s: %s has it otherwise: %s", name, known.source, ", ".join(differing))
    library, architecture = library_of(network)
    architecture = architecture.partition(".")[0]
    if library == "":
        logger.info("%s: %s is made with its default options: the file does not say which it had", name, network)
    made_for_symmetric = library in ("", "torchvision") and architecture in SYMMETRIC and known.space is None
    if made_for_symmetric and not _alike(space, PixelSpace.symmetric()):
        logger.warning("%s: %s is made for --space symmetric, got %s", name, architecture, space)


def _alike(one: PixelSpace, other: PixelSpace) -> bool:
    """Whether two spaces make the same input: constants equal for all channels may be one number or several."""
    bounds = (one.lower, one.upper) == (other.lower, other.upper)
    both_uniform = one.uniform and other.uniform
    return one == other or (both_uniform and bounds and (one.mean[0], one.std[0]) == (other.mean[0], other.std[0]))
