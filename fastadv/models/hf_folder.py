"""Networks in folders of transformers: config.json, safetensors and preprocessor_config.json, read without code."""

from __future__ import annotations

import hashlib
import importlib
import json
import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from fastadv.models.known_input import KnownInput, interpolation_fields, space_of_constants
from fastadv.pixels import PixelSpace
from fastadv.utils.regular_files import read_regular
from fastadv.utils.text import few

_PROCESSOR = "preprocessor_config.json"
_SQUARE = ("ViT", "DeiT", "Beit", "Siglip")  # these image processors take one number as both sides
_SHORTER_SIDE = ("Bit", "CLIP", "ConvNext", "MobileNetV1", "MobileNetV2")  # these as the shorter side
_RESAMPLING = {2: "bilinear", 3: "bicubic"}  # Pillow's numbers
_CONVNEXT_SQUARE = 384  # from this size on ConvNext's processor resizes both sides, and does not crop


def load_hf(folder: Path) -> nn.Module:
    """Load a network for image classification from a folder that transformers saved. No code in it is run.

    Raises:
        FileNotFoundError: if the folder lacks config.json.
        ValueError: if transformers cannot load it, or its weights are not all there.
        ModuleNotFoundError: if transformers is not installed.
    """
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"{folder} is not a folder of transformers: it has no config.json")
    try:
        transformers = importlib.import_module("transformers")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"hf/{folder} needs transformers, which fastadv does not install; install it with: pip install transformers"
        ) from error
    with _quiet(transformers):
        try:
            model, report = transformers.AutoModelForImageClassification.from_pretrained(
                str(folder),
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                output_loading_info=True,
            )
        except Exception as error:  # any kind, for a damaged file or an unknown network
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise ValueError(f"{folder}: transformers cannot load a network from it: {reason}") from error
    for what in ("missing_keys", "mismatched_keys"):
        if names := sorted(map(str, report.get(what, ()))):
            raise ValueError(
                f"{folder}: {what.replace('_keys', '')} weights, which would be random: {few(names, most=3)}; is it "
                "the folder of a network for image classification?"
            )
    return model.eval()  # type: ignore[no-any-return]


def hash_of_config(folder: Path) -> str:
    """Return a sha256 of config.json, which says what network it is, such as its activation functions."""
    return hashlib.sha256(read_regular(folder / "config.json")).hexdigest()


@contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """Without the progress bar and the log lines of transformers; what matters is checked."""
    log = transformers.utils.logging
    level, bar = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity(log.CRITICAL)
    log.disable_progress_bar()
    try:
        yield
    finally:
        log.set_verbosity(level)
        if bar:
            log.enable_progress_bar()


def hf_input(folder: Path) -> KnownInput:
    """Return how images are preprocessed for the network in such a folder, as far as preprocessor_config.json says it.

    Raises:
        OSError: if the file cannot be read.
        ValueError: if it is not what transformers writes.
    """
    path = folder / _PROCESSOR
    if not path.is_file():
        return KnownInput()
    try:
        config = json.loads(read_regular(path))
        return _of_config(config, str(path))
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError, ZeroDivisionError) as error:
        raise ValueError(f"{path}: not a valid configuration of an image processor ({error})") from error


def _of_config(config: Mapping[str, Any], source: str) -> KnownInput:
    given = str(config.get("image_processor_type") or config.get("feature_extractor_type"))
    kind = re.sub(r"(ImageProcessor(Fast|Pil)?|FeatureExtractor)$", "", given)
    if kind not in (*_SQUARE, *_SHORTER_SIDE):
        return KnownInput(source=source, unsupported=f"the image processor {given}")
    mode = _RESAMPLING.get(config.get("resample", 2), config.get("resample"))
    return KnownInput(source=source, space=_space(config), **_geometry(kind, config), **interpolation_fields(mode))


def _space(config: Mapping[str, Any]) -> PixelSpace | None:
    """The PixelSpace; None if pixels are scaled in a way that has no name here."""
    normalizes, rescales = config.get("do_normalize", True), config.get("do_rescale", True)
    if not rescales:
        return None if normalizes else PixelSpace.raw()
    if not math.isclose(config.get("rescale_factor", 1 / 255), 1 / 255, rel_tol=1e-4):
        return None
    return space_of_constants(config["image_mean"], config["image_std"]) if normalizes else PixelSpace.unit()


def _geometry(kind: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """KnownInput's size, central and keep_aspect."""
    size = config["size"]
    if isinstance(size, int):
        size = {"height": size, "width": size} if kind in _SQUARE else {"shortest_edge": size}
    if kind == "ConvNext":
        side = int(size["shortest_edge"])
        resized = side if side >= _CONVNEXT_SQUARE else int(side / config.get("crop_pct", 224 / 256))
        return {"size": side, "central": side / resized, "keep_aspect": side < _CONVNEXT_SQUARE}
    keep_aspect = "shortest_edge" in size
    resized = int(size["shortest_edge"] if keep_aspect else size["height"])
    if not keep_aspect and size["width"] != resized:
        raise ValueError(f"images of {resized} x {size['width']} pixels are not supported")
    crops = config.get("do_center_crop", "crop_size" in config)
    crop = config["crop_size"] if crops else resized
    side = int(crop if isinstance(crop, int) else crop["height"])
    if not 0 < side <= resized:
        raise ValueError(f"a crop of {side} pixels from {resized} is not supported")
    if keep_aspect and not crops:
        raise ValueError("images that are not square are not supported: it resizes the shorter side, and does not crop")
    return {"size": side, "central": side / resized, "keep_aspect": keep_aspect}
