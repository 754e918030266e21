"""Decide how images are shown to the models of a command: in the same way to all of them.

If images have another size or normalisation than in training, a network is less accurate, and nothing fails. So what a
weight file does not say has to be given as an option, and what is used is logged.
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


def merge_image_options(
    config: DataConfig,
    runs: Mapping[str, DataConfig],
    files: Mapping[str, KnownInput],
    networks: Mapping[str, str],
    options: argparse.Namespace,
) -> DataConfig:
    """Return the configuration with which images in files are shown to all models.

    Args:
        config: the data set's; its other fields are kept.
        runs: each run's own configuration, by the name of its row.
        files: what is known of each model from a file, by the name of its row.
        networks: the network of each of these, for a hint.
        options: those of the command that are named in ``DATA_OPTIONS``, None where they were not given.

    Raises:
        ValueError: if a size is not known, or models are shown images in different ways.
    """
    given = {name: value for name in DATA_OPTIONS if (value := getattr(options, name)) is not None}
    ways = {name: {way: getattr(run, way) for way in DATA_OPTIONS} for name, run in runs.items()}
    for name, run in ways.items():
        if unlike := [way for way in given if given[way] != run[way]]:
            raise ValueError(
                f"{_option(unlike[0], given[unlike[0]])} is only for models from files: the run {name} uses "
                f"data.{unlike[0]} {run[unlike[0]]}"
            )
    ways |= {name: {**known.data_options(), **given} for name, known in files.items()}
    _check_known(ways, networks)
    values = {way: {name: of_one[way] for name, of_one in ways.items() if way in of_one} for way in DATA_OPTIONS}
    if differing := {way: shown for way, shown in values.items() if len({*shown.values()}) > 1}:
        raise ValueError(_in_different_ways(differing, runs))
    return replace(config, **{way: next(iter(shown.values())) for way, shown in values.items() if shown})


def _in_different_ways(differing: Mapping[str, Mapping[str, Any]], runs: Mapping[str, DataConfig]) -> str:
    """Create a message with the options that would show all models the same images."""
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
        or_given = f", or give {options} as in the {'run' if len(runs) == 1 else 'runs'}"
    return (
        f"models that are shown images in different ways cannot share a table: {shown}; evaluate them with separate "
        f"commands{or_given}"
    )


def _option(way: str, value: object = None) -> str:
    """The name of an option; for a switch, with ``no-`` if it is off."""
    name = way.replace("_", "-")
    return f"--no-{name}" if value is False else f"--{name}"


def _with_value(way: str, value: object) -> str:
    return _option(way, value) + ("" if isinstance(value, bool) else f" {value}")


def _check_known(ways: Mapping[str, Mapping[str, Any]], networks: Mapping[str, str]) -> None:
    unknown = [name for name, of_one in ways.items() if "size" not in of_one]
    if unknown:
        raise ValueError(
            f"--size is needed for {', '.join(unknown)}: how many pixels a side had the images that the weights were "
            f"trained on?{size_hint(networks.get(unknown[0], ''))}"
        )


def check_in_memory(
    images: data.ImageSet, name: str, files: Mapping[str, KnownInput], options: argparse.Namespace
) -> None:
    """Reject options that are only for images in files; warn about models that were trained on another size.

    Raises:
        ValueError: if there is such an option.
    """
    if given := [_option(way, value) for way in DATA_OPTIONS if (value := getattr(options, way)) is not None]:
        raise ValueError(
            f"{', '.join(given)}: only for images in files; those of {name} are in memory and have a fixed size"
        )
    height, width = images.images.shape[2:]
    for row, known in files.items():
        if known.size not in (None, height, width):
            logger.warning(
                "%s was trained on images of %d px, and those of %s are %d x %d: this may make it less accurate",
                *(row, known.size, name, height, width),
            )


def log_input(
    name: str, network: str, known: KnownInput, space: PixelSpace, config: DataConfig, *, in_files: bool
) -> None:
    """Log how a model from a file is shown the images, and what may differ from its training."""
    shown = f"images of {config.preprocessing.shown}, " if in_files else ""
    logger.info("%s: input is %s%s%s", name, shown, space, f"; from {known.source}" if known.source else "")
    used = {way: getattr(config, way) for way in DATA_OPTIONS} if in_files else {}
    differing = [
        f"{way} {value} (not {used[way]})"
        for way, value in known.data_options().items()
        if way in used and used[way] != value
    ]
    differing += [f"{known.space} (not {space})"] if known.space and not _alike(known.space, space) else []
    differing += [known.unsupported] if known.unsupported and in_files else []
    if differing:
        logger.warning("%s: %s says otherwise: %s", name, known.source, ", ".join(differing))
    if not network:
        return
    library, architecture = library_of(network)
    architecture = architecture.partition(".")[0]
    if library == "":
        logger.info("%s: %s is created with default options, since the file does not say which it had", name, network)
    made_for_symmetric = library in ("", "torchvision") and architecture in SYMMETRIC and known.space is None
    if made_for_symmetric and not _alike(space, PixelSpace.symmetric()):
        logger.warning("%s: %s expects --space symmetric, got %s", name, architecture, space)


def _alike(one: PixelSpace, other: PixelSpace) -> bool:
    """True if two spaces give the same input: equal constants for all channels may be one number or several."""
    bounds = (one.lower, one.upper) == (other.lower, other.upper)
    both_uniform = one.uniform and other.uniform
    return one == other or (both_uniform and bounds and (one.mean[0], one.std[0]) == (other.mean[0], other.std[0]))
