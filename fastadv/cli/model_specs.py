"""Load the models that a command line names: runs of ``fastadv train``, and networks with a file of their weights."""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

from torch import nn

from fastadv import data, models
from fastadv.cli.arguments import number
from fastadv.cli.folder_labels import CLASSES_OF_FOLDER, label_folder
from fastadv.cli.image_options import check_in_memory, log_input, merge_image_options
from fastadv.data.config import DataConfig, SpaceName
from fastadv.data.datasets import FOLDER
from fastadv.data.sources.folder import ImageFolder
from fastadv.distributed import launched
from fastadv.evaluate.sweep import Images, Subject
from fastadv.models.check_input import check_accepts
from fastadv.models.complete import load_complete
from fastadv.models.hf_folder import hash_of_config
from fastadv.models.known_input import KnownInput, known_input
from fastadv.models.shapes import classes_of_weights
from fastadv.models.specs import ModelSpec, check_names_a_network, parse_spec
from fastadv.models.weight_files import WeightFile, is_averaged, read_weights
from fastadv.models.weights import WeightsDoNotFitError, load_state
from fastadv.pixels import PixelSpace
from fastadv.train.check_classes import CLASSES_OF_FILES, check_classes
from fastadv.train.checkpoint import LoadedModel, load_model
from fastadv.utils.log import logger
from fastadv.utils.model_outputs import split_logits
from fastadv.utils.suggestions import did_you_mean, nearest
from fastadv.utils.text import as_utf8, counted, printable
from fastadv.utils.user_code import hash_of_code


@dataclass(frozen=True, eq=False)
class LoadedModels:
    """The models of a command, and the images that they are measured on.

    Args:
        subjects: in the order of the arguments.
        config: which images, and how they are shown.
        images: the test images.
        paths: of each model by its name, absolute.
        texts: the argument of each model by its name, without ``NAME=``.
    """

    subjects: list[Subject]
    config: DataConfig
    images: Images
    paths: dict[str, str]
    texts: dict[str, str]


def load_subjects(texts: Sequence[str], options: argparse.Namespace) -> LoadedModels:
    """Load the models that a command line names, and their images.

    Args:
        texts: the arguments, see :func:`fastadv.models.specs.parse_spec`.
        options: those of :func:`fastadv.cli.model_options.add_options`.

    Raises:
        ValueError: if two rows have one name, models have different data sets, a run was trained on other classes,
            weights do not fit, or an option is missing or has no effect.
        OSError: if a file cannot be read.
        CheckpointError: if a checkpoint is unusable.
    """
    named = [parse_spec(text) for text in texts]
    for one in named:
        check_names_a_network(one)
    runs = {one: load_model(one.path, averaged=options.averaged) for one in named if one.kind == "run"}
    names = _names(named, runs)
    config = _data_set(names, runs, options)
    images = _test_images(config, names, runs, options)
    files = {one: _read(one, names[one], options.averaged) for one in named if one.kind == "weights"}
    complete = {one: load_complete(one) for one in named if one.kind in ("hf", "code")}
    known = {names[one]: known_input(one.network or "", one.path, file) for one, file in files.items()}
    known |= {names[one]: input_of_it for one, (_, input_of_it) in complete.items()}
    known = {names[one]: known[names[one]] for one in named if one not in runs}
    config = _shown(config, names, runs, known, images, options)
    shape = data.shape_of(images, config)
    spaces = _spaces(options.space, known, shape[0])
    made = {one: (model, _classes_of(one, model, shape)) for one, (model, _) in complete.items()}
    if isinstance(images, ImageFolder) and config.name == FOLDER:
        sizes = {classes for _, classes in made.values()}
        sizes |= {classes_of_weights(one.architecture, file.weights) or 0 for one, file in files.items()}
        images = label_folder(images, [run.classes for run in runs.values()], sizes, say=launched().main)
    where = f"{config.name} in {config.root}" if config.root else config.name
    for one, run in runs.items():
        check_classes(names[one], run, images, where)
    for one, (_, classes) in made.items():
        if classes != len(images.classes):
            has = f"{names[one]} has {counted(classes, 'class')}, and {where} has {len(images.classes)}"
            raise ValueError(f"{has}{_classes_hint(images, config)}")
    subjects = [
        Subject(names[one], runs[one].model, runs[one].config.data.pixel_space)
        if one in runs
        else Subject(names[one], made[one][0], spaces[names[one]], _code_of(one))
        if one in made
        else _from_file(one, names[one], files[one], images, config, spaces)
        for one in named
    ]
    if launched().main:
        for one in (*files, *made):
            in_files = not isinstance(images, data.ImageSet)
            name = names[one]
            log_input(name, one.network or "", known[name], spaces[name], config, in_files=in_files)
    averaged = " (averaged)" if options.averaged else ""
    paths = {names[one]: as_utf8(f"{one.place}{averaged}") for one in named}
    given = {names[one]: as_utf8(one.text) for one in named}
    return LoadedModels(subjects, _with_loader(config, images, options), images, paths, given)


def _code_of(spec: ModelSpec) -> str:
    """What the logits follow from besides the weights: one's own code, the network's name, or its configuration."""
    if spec.kind == "code":
        return hash_of_code(str(spec.path), spec.factory)
    return hash_of_config(spec.path) if spec.kind == "hf" else spec.architecture


def _test_images(
    config: DataConfig,
    names: Mapping[ModelSpec, str],
    runs: Mapping[ModelSpec, LoadedModel],
    options: argparse.Namespace,
) -> Images:
    """Load the test images; what was probably meant is said if they are not found."""
    try:
        return data.load_test(config.name, config.root, options.download)
    except OSError as error:
        if config.name == "imagenet" and config.root and any(Path(config.root).expanduser().glob("*/*.*")):
            raise OSError(f"{error}; for images in CLASS/IMAGE alone, give --dataset {FOLDER}") from error
        if options.data or not config.root or os.path.isabs(config.root):
            raise
        first = names[next(iter(runs))]
        why = f"{first} was trained with --data {config.root}, relative to another folder: give its place by --data DIR"
        raise OSError(f"{error}. {why}") from error


def _names(named: Sequence[ModelSpec], runs: Mapping[ModelSpec, LoadedModel]) -> dict[ModelSpec, str]:
    names: dict[ModelSpec, str] = {}
    for one in named:
        stem = one.factory or (one.path.name if one.kind == "hf" else Path(one.path.name.removesuffix(".tar")).stem)
        name = printable(as_utf8(one.name or (runs[one].name if one in runs else stem)))
        if name in names.values():
            raise ValueError(
                f"two models would be named {name!r}: leave one out, or name it, as in '{name} 2={one.text}'"
            )
        names[one] = name
    return names


def _data_set(
    names: Mapping[ModelSpec, str], runs: Mapping[ModelSpec, LoadedModel], options: argparse.Namespace
) -> DataConfig:
    """Return the data set that all models share, with its folder."""
    if not runs:
        if options.dataset is None:
            raise ValueError("models from files need --dataset, the data set that they were trained on")
        return DataConfig(name=options.dataset, root=options.data)
    first, *others = runs
    one = runs[first].config.data
    for other in others:
        if runs[other].config.data.name != one.name:
            raise ValueError(
                f"models of different data sets cannot share a table: {names[first]} was trained on {one.name}, "
                f"{names[other]} on {runs[other].config.data.name}; evaluate them with separate commands"
            )
    if options.dataset == FOLDER and one.name == "imagenet":
        return replace(one, name=FOLDER, root=options.data)
    if options.dataset not in (None, one.name):
        raise ValueError(f"{names[first]} was trained on {one.name}, but --dataset is {options.dataset}")
    return replace(one, root=options.data or one.root)


def _shown(
    config: DataConfig,
    names: Mapping[ModelSpec, str],
    runs: Mapping[ModelSpec, LoadedModel],
    known: Mapping[str, KnownInput],
    images: Images,
    options: argparse.Namespace,
) -> DataConfig:
    """Set how the images are shown to all models."""
    if isinstance(images, data.ImageSet):
        check_in_memory(images, config.name, known, options)
        return config
    networks = {names[one]: one.network or "" for one in names if one not in runs}
    return merge_image_options(
        config, {names[one]: run.config.data for one, run in runs.items()}, known, networks, options
    )


def _with_loader(config: DataConfig, images: Images, options: argparse.Namespace) -> DataConfig:
    """Set the loader and workers of this command; a run's own depend on the machine that it was trained on."""
    if not isinstance(images, data.ImageSet):
        loader = data.resolve_loader(options.loader, option="--loader", say=launched().main)
        return replace(config, loader=loader, workers=options.workers)
    if options.loader != "auto" or options.workers is not None:
        raise ValueError(f"--loader and --workers are for images in files, but {config.name} is read into memory")
    return config


def _spaces(texts: Sequence[str], known: Mapping[str, KnownInput], channels: int) -> dict[str, PixelSpace]:
    """Map each model from a file to its PixelSpace: that of the option, or what is known of the weights."""
    names = list(known)
    if texts and not names:
        raise ValueError(f"--space {texts[0]}: this is for models from files; a run of fastadv train knows its own")
    spaces = {name: one.space for name, one in known.items() if one.space and one.space.channels in (1, channels)}
    for text in sorted(texts, key=lambda text: "=" in text):  # NAME=SPACE overrides SPACE
        name, equals, space = printable(as_utf8(text)).rpartition("=")
        if equals and name not in names:
            raise ValueError(
                f"--space {text}: no model from a file is named {name!r}{did_you_mean(nearest(name, names))}; there "
                f"are {', '.join(names)}, and a run of fastadv train knows its own space"
            )
        spaces.update(dict.fromkeys([name] if equals else names, parse_space(space)))
    if missing := [name for name in names if name not in spaces]:
        raise ValueError(
            f"--space is needed for {', '.join(missing)}: how were its training images normalised? "
            f"{', '.join(get_args(SpaceName))}, or mean/std as in 0.485,0.456,0.406/0.229,0.224,0.225"
        )
    return spaces


def parse_space(text: str) -> PixelSpace:
    """Parse a PixelSpace: a name, or the constants ``mean,.../std,...`` that torchvision's Normalize takes.

    Raises:
        ValueError: if the text is neither.
    """
    if text in get_args(SpaceName):
        space: PixelSpace = getattr(PixelSpace, text)()
        return space
    mean, slash, std = text.partition("/")
    constants = [[number(part) for part in side.split(",")] for side in (mean, std)]
    if not slash or not all(math.isfinite(value) for side in constants for value in side):
        raise ValueError(
            f"--space must be {', '.join(get_args(SpaceName))}, or mean/std on a [0, 1] scale, as in "
            f"0.485,0.456,0.406/0.229,0.224,0.225, got {text!r}{did_you_mean(nearest(text, get_args(SpaceName)))}"
        )
    return PixelSpace.normalized(*constants)


def _read(one: ModelSpec, name: str, averaged: bool) -> WeightFile:
    """Read the weights of a file; if it holds several, a line says which are used."""
    file = read_weights(one.path, averaged=averaged)
    if file.passed_over and launched().main:
        others = ", ".join(file.passed_over)
        other = "; --averaged uses averaged ones" if any(map(is_averaged, file.passed_over)) else ""
        logger.info("%s: of the weights in %s, %s are used, not %s%s", name, one.path, file.taken, others, other)
    if averaged and not is_averaged(file.taken) and launched().main:
        logger.warning("%s: %s has no weights that are named as averaged ones", name, one.path)
    return file


def _from_file(
    one: ModelSpec,
    name: str,
    file: WeightFile,
    images: Images,
    config: DataConfig,
    spaces: Mapping[str, PixelSpace],
) -> Subject:
    shape = data.shape_of(images, config)
    model = models.create(one.architecture, num_classes=len(images.classes), in_channels=shape[0])
    try:
        load_state(model, file.weights, one.path)
    except WeightsDoNotFitError as error:
        has = f"{config.name} has {counted(len(images.classes), 'class')}{_classes_hint(images, config)}"
        raise ValueError(f"{error}. {has}") from error
    try:
        check_accepts(model.eval(), shape)
    except ValueError as error:
        raise ValueError(f"{one.network}: {error}; choose another --size or --dataset") from error
    return Subject(name, model, spaces[name], _code_of(one))


def _classes_of(one: ModelSpec, model: nn.Module, shape: Sequence[int]) -> int:
    """Number of classes of a network, by its logits for images [C, H, W]."""
    try:
        output = check_accepts(model, shape)
        logits, _ = split_logits(output)  # [N, K]
    except (TypeError, ValueError) as error:
        raise ValueError(f"{one.text}: {error}") from error
    if logits.dim() != 2:
        raise ValueError(f"{one.text} must return logits [N, K], got {list(logits.shape)}")
    return logits.shape[1]


def _classes_hint(images: Images, config: DataConfig) -> str:
    """Where the classes of images in files come from."""
    if isinstance(images, data.ImageSet):
        return ""
    return CLASSES_OF_FOLDER if config.name == FOLDER else CLASSES_OF_FILES
