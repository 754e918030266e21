"""Finds how images were preprocessed for a network whose weights come from a file."""

from __future__ import annotations

import argparse
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from fastadv import models
from fastadv.data.transforms.preprocessing import InterpolationName
from fastadv.models.shapes import classes_of_weights
from fastadv.models.weight_files import WeightFile
from fastadv.pixels import PixelSpace
from fastadv.utils.optional_deps import require
from fastadv.utils.regular_files import read_regular

DATA_OPTIONS = ("size", "central", "keep_aspect", "interpolation")  # fields of DataConfig, and options of commands
_OF_NETWORKS = ("gp", "bn_eps", "model_kwargs")  # options of timm's script that change a network but no weight's shape
_LARGEST = 2**12  # side in pixels: limits the memory that a number in a file can ask for
# These networks convert ImageNet's normalisation themselves, but only with weights that torchvision downloads.
SYMMETRIC = ("inception_v3", "googlenet")


@dataclass(frozen=True, kw_only=True)
class KnownInput:
    """How a network's images were preprocessed; None where it is not known.

    Args:
        source: where this is written, for messages.
        size: side in pixels.
        central: share of the sides that the central crop keeps.
        keep_aspect: true if the aspect ratio is kept: the shorter side is resized.
        interpolation: how images are resized.
        space: the PixelSpace of the input.
        unsupported: preprocessing that no loader here can do.
    """

    source: str = ""
    size: int | None = None
    central: float | None = None
    keep_aspect: bool | None = None
    interpolation: str | None = None
    space: PixelSpace | None = None
    unsupported: str = ""

    def data_options(self) -> dict[str, Any]:
        """Return what is known besides the space, by DataConfig's field names."""
        return {name: value for name in DATA_OPTIONS if (value := getattr(self, name)) is not None}


def known_input(network: str, path: Path, file: WeightFile) -> KnownInput:
    """Return what is known of the input of a network whose weights are in a file.

    Looked up first are the options of timm's or torchvision's training script, which it saves in the file; then timm's
    ``config.json`` next to the file; then the name of the library's own weights, as in ``timm/resnet18.a1_in1k``. For a
    name without a tag, ``timm/resnet18``, the library's configuration counts if the file has as many classes as the
    library's own weights, such as ImageNet's 1,000: of timm all of it, of torchvision, whose weights differ in the size
    of their images, the normalisation. Weights for other classes may have been trained on images of any kind.

    Raises:
        OSError: if a file next to it cannot be read.
        ValueError: if the library has no weights of that name, or the file's values are invalid or describe another
            network.
    """
    if all((path.parent / name).is_file() for name in ("meta.json", "SHA256SUMS")):
        raise ValueError(
            f"{path} is part of a checkpoint, which has its network's options and input: pass {path.parent} instead"
        )
    library, name = models.library_of(network)
    args = file.beside.get("args")
    options = vars(args) if isinstance(args, argparse.Namespace) else args if isinstance(args, Mapping) else {}
    if library == "timm":
        return _by_timm(name, path, file, options)
    if library == "torchvision":
        return _by_torchvision(name, path, file, options)
    return KnownInput()


def size_hint(network: str) -> str:
    """Return a hint with the image size of the library's own weights, in case the file has these; "" without any."""
    library, name = models.library_of(network)
    if library == "timm" and (config := _timm_config(name)).get("tag"):
        own = f"timm/{name}.{config['tag']}"
        return f" For timm's own weights, pass {own}@FILE: their images have {config['input_size'][-1]} pixels a side"
    if library == "torchvision" and (tags := _torchvision_weights(name)):
        return f" For torchvision's own weights, pass torchvision/{name}.{min(tags)}@FILE; tags are {', '.join(tags)}"
    return ""


# --- timm ------------------------------------------------------------------------------------------------------------


def _by_timm(name: str, path: Path, file: WeightFile, options: Mapping[str, Any]) -> KnownInput:
    architecture, _, tag = name.partition(".")
    if str(options.get("model")).partition(".")[0] == architecture:
        source = f"the training options in {path}"
        if others := [f"{option} {options[option]}" for option in _OF_NETWORKS if options.get(option)]:
            raise ValueError(f"{source} describe a network that cannot be created here: {', '.join(others)}")
        return input_of_timm_config(_timm_config(str(options["model"])), source, options)
    beside = path.with_name("config.json")
    config = _json_of(beside)
    if config.get("architecture") == architecture and isinstance(config.get("pretrained_cfg"), dict):
        return input_of_timm_config(config["pretrained_cfg"], str(beside))
    config = _timm_config(name)
    if tag:
        return input_of_timm_config(config, f"timm's configuration of {name}")
    if config.get("tag") and classes_of_weights(f"timm/{name}", file.weights) == config.get("num_classes"):
        return input_of_timm_config(config, f"timm's configuration of {name} (the file has as many classes)")
    if config.get("fixed_input_size"):  # weights of another size would not fit
        return KnownInput(source=f"timm's {name}, which takes no other", size=config["input_size"][-1])
    return KnownInput()


def _timm_config(name: str) -> dict[str, Any]:
    try:
        config = require("timm.models", extra="train").get_pretrained_cfg(name)
    except RuntimeError as error:
        raise ValueError(f"timm/{name}: {error}") from error
    return {} if config is None else dict(config.to_dict())


def _json_of(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file; empty without a file or a valid object.

    Raises:
        OSError: if the file cannot be read, for instance a broken link.
    """
    try:
        content = json.loads(read_regular(path)) if os.path.lexists(path) else {}
    except (ValueError, RecursionError):
        content = {}
    return content if isinstance(content, dict) else {}


def input_of_timm_config(
    config: Mapping[str, Any], source: str, options: Mapping[str, Any] | None = None
) -> KnownInput:
    """Resolve a network's ``pretrained_cfg`` as timm does.

    Args:
        config: the configuration.
        source: where it is written, for messages.
        options: of timm's training script, which override it.

    Raises:
        ValueError: if its values are invalid or describe images that no loader here can make.
    """
    resolve = require("timm.data", extra="train").resolve_data_config
    try:
        found = resolve(args=dict(options or {}), pretrained_cfg=dict(config))
        _, height, width = found["input_size"]
        size, share, mode = int(height), float(found["crop_pct"]), found["crop_mode"]
        space = space_of_constants(found["mean"], found["std"])
    except (AssertionError, TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{source}: not a valid timm configuration ({error})") from error
    if height != width or not 0 < share <= 1 or not 1 <= size <= _LARGEST:
        raise ValueError(
            f"{source}: images of {height} x {width} pixels with a central share of {share:g} are not supported"
        )
    return KnownInput(
        source=source,
        size=size,
        central=size / math.floor(size / share),  # timm first resizes to whole pixels
        keep_aspect={"center": True, "squash": False}.get(mode),
        **interpolation_fields(
            found["interpolation"], unsupported="" if mode in ("center", "squash") else f"crop mode {mode}"
        ),
        space=space,
    )


# --- torchvision -----------------------------------------------------------------------------------------------------


def _by_torchvision(name: str, path: Path, file: WeightFile, options: Mapping[str, Any]) -> KnownInput:
    architecture, _, tag = name.partition(".")
    crop: Any = options.get("val_crop_size")
    resize: Any = options.get("val_resize_size")
    both_sizes = isinstance(crop, int) and isinstance(resize, int)
    if options.get("model") == architecture and both_sizes and 0 < crop <= min(resize, _LARGEST):
        return KnownInput(
            source=f"the training options in {path}",
            size=crop,
            central=crop / resize,
            keep_aspect=True,
            **interpolation_fields(options.get("interpolation")),
            space=PixelSpace.imagenet(),  # constants of the script
        )
    known = _torchvision_weights(architecture)
    if not tag:
        own = {len(weights.meta["categories"]) for weights in known.values()}
        if own == {classes_of_weights(f"torchvision/{architecture}", file.weights)}:
            return KnownInput(
                source=f"torchvision's own weights of {architecture} (the file has as many classes)",
                space=_space_of_preset(architecture, next(iter(known.values())).transforms()),
            )
        return KnownInput()
    if tag not in known:
        raise ValueError(f"torchvision/{architecture} has no weights {tag!r}; it has {', '.join(known) or 'none'}")
    preset = known[tag].transforms()
    return KnownInput(
        source=f"torchvision's transforms of {name}",
        size=preset.crop_size[0],
        central=preset.crop_size[0] / preset.resize_size[0],
        keep_aspect=True,
        **interpolation_fields(preset.interpolation.value),
        space=_space_of_preset(architecture, preset),
    )


def _space_of_preset(architecture: str, preset: Any) -> PixelSpace:
    """The space of torchvision's transforms, which is the same for all of its weights of a network."""
    return PixelSpace.symmetric() if architecture in SYMMETRIC else space_of_constants(preset.mean, preset.std)


def _torchvision_weights(architecture: str) -> dict[str, Any]:
    """Return torchvision's weights by name; empty for a network that it does not have."""
    library = require("torchvision.models", extra="train")
    known = architecture in library.list_models(module=library)
    return {weights.name: weights for weights in library.get_model_weights(architecture)} if known else {}


# --- both ------------------------------------------------------------------------------------------------------------


def space_of_constants(mean: Sequence[float], std: Sequence[float]) -> PixelSpace:
    """Create a PixelSpace from constants on a [0, 1] scale; one for all channels if they are equal."""
    if len({*mean}) == len({*std}) == 1:
        return PixelSpace.normalized(mean[0], std[0])
    return PixelSpace.normalized(tuple(mean), tuple(std))


def interpolation_fields(name: Any, unsupported: str = "") -> dict[str, Any]:
    """Return KnownInput's field ``interpolation``, if the loaders have it, and ``unsupported``."""
    if name in get_args(InterpolationName):
        return {"interpolation": name, "unsupported": unsupported}
    return {"unsupported": ", ".join(filter(None, (unsupported, f"interpolation {name!r}")))}
