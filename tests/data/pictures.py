"""Create encoded images, and folders of them."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

ORIENTATION = 0x112  # the EXIF tag
TURNED = 6  # its value for an image that viewers rotate by 90 degrees clockwise


def picture(height: int, width: int, seed: int = 0) -> Image.Image:
    """Smooth colours, like those of a photograph."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, kind: str = "JPEG", **options: Any) -> bytes:
    """Encode an image as a file; JPEGs in good quality."""
    file = io.BytesIO()
    image.save(file, kind, **({"quality": 95} if kind == "JPEG" else {}), **options)
    return file.getvalue()


def png_of_16_bits(image: Image.Image) -> bytes:
    """Encode an RGB image as a PNG with 16 bits per channel, which Pillow can read but not write."""
    levels = (np.asarray(image, np.uint16) * 257).astype(">u2")  # [H, W, 3]
    header = struct.pack(">IIBBBBB", image.width, image.height, 16, 2, 0, 0, 0)
    rows = b"".join(b"\0" + row.tobytes() for row in levels)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    framed = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(framed)


def jpeg(height: int, width: int, seed: int = 0) -> bytes:
    return encoded(picture(height, width, seed))


def with_orientation(value: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ORIENTATION] = value
    return exif


def real_world() -> dict[str, bytes]:
    """What ImageNet and other collections contain besides RGB JPEGs of a usual size."""
    usual = picture(120, 160)
    grey = np.asarray(usual.convert("L"), np.uint16)  # [120, 160]
    return {
        "usual": encoded(usual),
        "progressive": encoded(usual, progressive=True),
        "grey": encoded(usual.convert("L")),
        "cmyk": encoded(usual.convert("CMYK")),
        "turned": encoded(usual, exif=with_orientation(TURNED)),
        "mirrored": encoded(usual, exif=with_orientation(2)),
        "png": encoded(usual, "PNG"),
        "png, transparent": encoded(usual.convert("RGBA"), "PNG"),
        "png, palette": encoded(usual.convert("P"), "PNG"),
        "png, grey": encoded(usual.convert("L"), "PNG"),
        "png, grey of 16 bits": encoded(Image.fromarray(grey * 256 + 200), "PNG"),
        "png, colour of 16 bits": png_of_16_bits(usual),
        "webp": encoded(usual, "WEBP"),
        "bmp": encoded(usual, "BMP"),
        "tiff": encoded(usual, "TIFF"),
        "one pixel": jpeg(1, 1),
        "tiny": jpeg(3, 5),
        "huge": jpeg(3000, 4000),
        "column": jpeg(900, 3),
        "row": jpeg(3, 900),
        "bytes after the end": encoded(usual) + bytes(7),
    }


def damaged() -> dict[str, bytes]:
    """Files that are not images, or only parts of one."""
    whole, png = jpeg(120, 160), encoded(picture(120, 160), "PNG")
    return {
        "empty": b"",
        "text": b"<html>404 not found</html>",
        "header only": whole[:200],
        "half": whole[: len(whole) // 2],
        "without its end": whole[:-2],
        "half a png": png[: len(png) // 2],
    }


def write_folder(root: Path, classes: dict[str, list[bytes]]) -> None:
    """Write ``root/CLASS/NUMBER.JPEG``, whatever the images' format is."""
    for name, images in classes.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        for number, content in enumerate(images):
            (root / name / f"{number:03}.JPEG").write_bytes(content)


def write_data_set(root: Path, per_class: int = 6, classes: int = 3) -> None:
    """Write train/ and val/ with JPEGs of various sizes, all different."""
    for split, offset in (("train", 0), ("val", 10_000)):
        for number in range(classes):
            seeds = [offset + 100 * number + image for image in range(per_class)]
            images = [jpeg(40 + seed % 37, 40 + seed % 53, seed) for seed in seeds]
            write_folder(root / split, {f"class{number}": images})
