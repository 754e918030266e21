"""Decode images with Pillow: for the torchvision loader, for `fastadv data check`, and to explain DALI's errors."""

from __future__ import annotations

import io
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastadv.utils.optional_deps import require
from fastadv.utils.text import printable

# Pillow reads about forty formats, whatever a file is called. For EPS it starts Ghostscript, which runs the program in
# the file. In PPM, pixels may be text, which takes minutes to read. Most others have few users to find their bugs.
# Ordered by frequency.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000")


def decode(encoded: bytes) -> Tensor:  # [3, H, W] uint8, in channels_last order
    """Decode the whole image to RGB, rotated by its EXIF orientation; grey, CMYK and palettes are converted.

    Raises:
        ValueError: if it is not an image in one of :data:`FORMATS`, is damaged, has more pixels than Pillow accepts or
            pixels of 32 bits; the message has the reason.
    """
    pillow, turn = require("PIL.Image", extra="train"), require("PIL.ImageOps", extra="train").exif_transpose
    try:
        with open_image(encoded) as image:
            array = np.array(_of_8_bits(turn(image)).convert("RGB"))  # [H, W, 3]
    except pillow.UnidentifiedImageError as error:
        raise ValueError(_unidentified(encoded)) from error
    except Exception as error:  # Pillow's plug-ins raise many kinds for damaged files
        raise ValueError(printable(str(error)) or type(error).__name__) from error
    pixels: Tensor = torch.from_numpy(array).permute(2, 0, 1)
    return pixels


def _of_8_bits(image: Any) -> Any:
    """Round 16-bit grey images to 256 levels, which Pillow would clip; return other images unchanged.

    Raises:
        ValueError: if pixels have 32 bits, integer or floating point, whose range the file does not define.
    """
    if image.mode in ("I", "F"):
        raise ValueError(f"its pixels have 32 bits (Pillow's mode {image.mode}) and an unknown range")
    if not image.mode.startswith("I;16"):
        return image
    levels = np.asarray(image).astype(np.uint32)  # [H, W] in 0..65535
    return require("PIL.Image", extra="train").fromarray(((levels + 128) // 257).astype(np.uint8))


def reason_against(encoded: bytes) -> str | None:
    """Why an image cannot be decoded; None if it can."""
    try:
        decode(encoded)
    except ValueError as error:
        return str(error)
    return None


def open_image(encoded: bytes) -> Any:
    """Open an image with Pillow, without decoding it. Use this everywhere: by default Pillow tries all formats.

    Raises:
        PIL.UnidentifiedImageError: if it is in none of :data:`FORMATS`.
    """
    return require("PIL.Image", extra="train").open(io.BytesIO(encoded), formats=formats_here())


@cache
def formats_here() -> tuple[str, ...]:
    """The :data:`FORMATS` that the installed Pillow knows; others would raise a KeyError."""
    pillow = require("PIL.Image", extra="train")
    pillow.init()  # imports the readers of all formats
    return tuple(name for name in FORMATS if name in pillow.OPEN)


def most_pixels() -> float:
    """Pillow's limit on the pixels of an image: 179 million, unless the program has changed it."""
    limit = require("PIL.Image", extra="train").MAX_IMAGE_PIXELS  # where Pillow starts to warn
    return float("inf") if limit is None else 2.0 * limit


def _unidentified(encoded: bytes) -> str:
    return f"not an image in a supported format: it begins with {encoded[:8]!r}" if encoded else "the file is empty"
