"""What is known of the input of a network whose weights come from a file, by its library or by the file."""

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
from fastadv.models.weight_files import WeightFile
from fastadv.pixels import PixelSpace
from fastadv.utils.optional_deps import require
from fastadv.utils.regular_files import read_regular

DATA_OPTIONS = ("size", "central", "keep_aspect", "interpolation")  # fields of DataConfig, and options of commands
_OF_NETWORKS = ("gp", "bn_eps", "model_kwargs")  # options of timm's script that change a network, but no weight's shape
_LARGEST = 2**12  # side in pixels: a number in a file is no reason to ask for any memory
# torchvision has these turn ImageNet's normalisation into their own themselves, but only with weights that it fetches.
SYMMETRIC = ("inception_v3", "googlenet")


@dataclass(frozen=True, kw_only=True)
class KnownInput:
    """How a network's images became its input; None is not known.

    Args:
        source: where this is written, for messages.
        size: side in pixels.
        central: share of the sides that is shown.
        keep_aspect: of the shorter side alone.
        interpolation: how images are resized.
        space: the PixelSpace of the input.
        unsupported: what was done to them that no loader here does.
    """

    source: str = ""
    size: int | None = None
    central: float | None = None
    keep_aspect: bool | None = None
    interpolation: str | None = None
    space: PixelSpace | None = None
    unsupported: str = ""

    def data_options(self) -> dict[str, Any]:
        """What is known besides the space, by the names of the fields of DataConfig."""
        return {name: value for name in DATA_OPTIONS if (value := getattr(self, name)) is not None}


def known_input(network: str, path: Path, file: WeightFile) -> KnownInput:
    """What is known of the input of a network whose weights are in a file.

    First the options of timm's or torchvision's training script, which it saves beside the weights; then timm's
    ``config.json`` beside the file; then the name of the library's own weights, as in ``timm/resnet18.a1_in1k``. A name
    without these, ``timm/resnet18``, tells nothing: the weights may have been trained on images of any size.

    Raises:
        OSError: a file beside it cannot be read.
        ValueError: the library has no weights of that name, what the file says cannot be, or it says that the network
            is another.
    """
    if all((path.parent / name).is_file() for name in ("meta.json", "SHA256SUMS")):
        raise ValueError(
            f"{path} is part of a checkpoint, which knows its network's options and input: name {path.parent}"
        )
    library, name = models.library_of(network)
    args = file.beside.get("args")
    options = vars(args) if isinstance(args, argparse.Namespace) else args if isinstance(args, Mapping) else {}
    if library == "timm":
        return _by_timm(name, path, options)
    if library == "torchvision":
        return _by_torchvision(name, path, options)
    return KnownInput()


def size_hint(network: str) -> str:
    """Of which size the images of the library's own weights are, for who has these; "" if it has none."""
    library, name = models.library_of(network)
    if library == "timm" and (config := _timm_config(name)).get("tag"):
        own = f"timm/{name}.{config['tag']}"
        return f" If they are timm's own, say {own}@FILE, which is shown {config['input_size'][-1]}"
    if library == "torchvision" and (tags := _torchvision_weights(name)):
        return f" If they are torchvision's own, say torchvision/{name}.{min(tags)}@FILE; there are {', '.join(tags)}"
    return ""


# --- timm ------------------------------------------------------------------------------------------------------------


def _by_timm(name: str, path: Path, options: Mapping[str, Any]) -> KnownInput:
    architecture, _, tag = name.partition(".")
    if str(options.get("model")).partition(".")[0] == architecture:
        source = f"the training options in {path}"
        if others := [f"{option} {options[option]}" for option in _OF_NETWORKS if options.get(option)]:
            raise ValueError(f"{source} are of another network, for which there is no option here: {', '.join(others)}")
        return _of_timm_config(_timm_config(str(options["model"])), options, source)
    beside = path.with_name("config.json")
    config = _json_of(beside)
    if config.get("architecture") == architecture and isinstance(config.get("pretrained_cfg"), dict):
        return _of_timm_config(config["pretrained_cfg"], {}, str(beside))
    config = _timm_config(name)
    if tag:
        return _of_timm_config(config, {}, f"timm's configuration of {name}")
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
    """An object in a file; empty if there is none.

    Raises:
        OSError: the file cannot be read, as a link that leads nowhere.
    """
    try:
        content = json.loads(read_regular(path)) if os.path.lexists(path) else {}
    except (ValueError, RecursionError):
        content = {}
    return content if isinstance(content, dict) else {}


def _of_timm_config(config: Mapping[str, Any], options: Mapping[str, Any], source: str) -> KnownInput:
    """What timm itself makes of a configuration, and of options that win over it."""
    resolve = require("timm.data", extra="train").resolve_data_config
    try:
        found = resolve(args=dict(options), pretrained_cfg=dict(config))
        _, height, width = found["input_size"]
        size, share, mode = int(height), float(found["crop_pct"]), found["crop_mode"]
        space = _space(found["mean"], found["std"])
    except (AssertionError, TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{source}: this is no configuration of timm's ({error})") from error
    if height != width or not 0 < share <= 1 or not 1 <= size <= _LARGEST:
        raise ValueError(f"{source}: images of {height} x {width} pixels, {share:g} of them, cannot be shown here")
    return KnownInput(
        source=source,
        size=size,
        central=size / math.floor(size / share),  # timm resizes to whole pixels first
        keep_aspect={"center": True, "squash": False}.get(mode),
        **_resized(found["interpolation"], unsupported="" if mode in ("center", "squash") else f"crop mode {mode}"),
        space=space,
    )


# --- torchvision -----------------------------------------------------------------------------------------------------


def _by_torchvision(name: str, path: Path, options: Mapping[str, Any]) -> KnownInput:
    architecture, _, tag = name.partition(".")
    crop: Any = options.get("val_crop_size")
    resize: Any = options.get("val_resize_size")
    whole = isinstance(crop, int) and isinstance(resize, int)
    if options.get("model") == architecture and whole and 0 < crop <= min(resize, _LARGEST):
        return KnownInput(
            source=f"the training options in {path}",
            size=crop,
            central=crop / resize,
            keep_aspect=True,
            **_resized(options.get("interpolation")),
            space=PixelSpace.imagenet(),  # constants of the script
        )
    if not tag:
        return KnownInput()
    known = _torchvision_weights(architecture)
    if tag not in known:
        raise ValueError(f"torchvision/{architecture} has no weights {tag!r}, but {', '.join(known) or 'none'}")
    preset = known[tag].transforms()
    return KnownInput(
        source=f"torchvision's transforms of {name}",
        size=preset.crop_size[0],
        central=preset.crop_size[0] / preset.resize_size[0],
        keep_aspect=True,
        **_resized(preset.interpolation.value),
        space=PixelSpace.symmetric() if architecture in SYMMETRIC else _space(preset.mean, preset.std),
    )


def _torchvision_weights(architecture: str) -> dict[str, Any]:
    """torchvision's own by their names; none of a network that it does not have."""
    library = require("torchvision.models", extra="train")
    known = architecture in library.list_models(module=library)
    return {weights.name: weights for weights in library.get_model_weights(architecture)} if known else {}


# --- both ------------------------------------------------------------------------------------------------------------


def _space(mean: Sequence[float], std: Sequence[float]) -> PixelSpace:
    """Of constants on a [0, 1] scale; one for all channels where they are equal."""
    if len({*mean}) == len({*std}) == 1:
        return PixelSpace.normalized(mean[0], std[0])
    return PixelSpace.normalized(tuple(mean), tuple(std))


def _resized(name: Any, unsupported: str = "") -> dict[str, Any]:
    """How images are resized, and what else is not done here."""
    if name in get_args(InterpolationName):
        return {"interpolation": name, "unsupported": unsupported}
    return {"unsupported": ", ".join(filter(None, (unsupported, f"interpolation {name!r}")))}
