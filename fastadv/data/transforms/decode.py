"""Decoding with Pillow: what the torchvision loader shows, what `fastadv data check` tests, and why DALI failed."""

from __future__ import annotations

import io
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastadv.utils.optional_deps import require
from fastadv.utils.text import printable

# Pillow reads about forty formats, whatever a file is called. For one of them, EPS, it starts Ghostscript, which runs
# the program that such a file is. Of another, PPM, the pixels may be text, which takes minutes to read. Most others
# have few users to find their mistakes. The first are the most frequent.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000")


def decode(encoded: bytes) -> Tensor:  # [3, H, W] uint8, in channels_last order
    """The whole image in RGB, turned as its EXIF orientation says; grey, CMYK and palettes become RGB.

    Raises:
        ValueError: it is not an image in one of :data:`FORMATS`, or damaged; it has more pixels than Pillow takes, or
            pixels of 32 bits; the message has the reason.
    """
    pillow, turn = require("PIL.Image", extra="train"), require("PIL.ImageOps", extra="train").exif_transpose
    try:
        with open_image(encoded) as image:
            array = np.array(_of_8_bits(turn(image)).convert("RGB"))  # [H, W, 3]
    except pillow.UnidentifiedImageError as error:
        raise ValueError(_what(encoded)) from error
    except Exception as error:  # Pillow's plug-ins raise many kinds for damaged files
        raise ValueError(printable(str(error)) or type(error).__name__) from error
    pixels: Tensor = torch.from_numpy(array).permute(2, 0, 1)
    return pixels


def _of_8_bits(image: Any) -> Any:
    """The image; of one in grey of 16 bits, the 65,536 levels rounded to 256, which Pillow would clip.

    Raises:
        ValueError: pixels of 32 bits, integers or floating point, whose black and white the file does not say.
    """
    if image.mode in ("I", "F"):
        raise ValueError(f"its pixels have 32 bits (Pillow's mode {image.mode}) and no range that is known")
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
    """Pillow's image, not decoded yet. Nothing else of the package may open images: Pillow would try all formats.

    Raises:
        PIL.UnidentifiedImageError: it is in none of :data:`FORMATS`.
    """
    return require("PIL.Image", extra="train").open(io.BytesIO(encoded), formats=formats_here())


@cache
def formats_here() -> tuple[str, ...]:
    """Those of :data:`FORMATS` that the installed Pillow knows; it fails with a KeyError at one that it does not."""
    pillow = require("PIL.Image", extra="train")
    pillow.init()  # imports the readers of all formats
    return tuple(name for name in FORMATS if name in pillow.OPEN)


def most_pixels() -> float:
    """The number of pixels up to which Pillow decodes an image, 179 million unless a program has set another."""
    limit = require("PIL.Image", extra="train").MAX_IMAGE_PIXELS  # from here on it warns
    return float("inf") if limit is None else 2.0 * limit


def _what(encoded: bytes) -> str:
    return f"not an image in a format that is read: it begins with {encoded[:8]!r}" if encoded else "the file is empty"
