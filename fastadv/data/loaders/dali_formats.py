"""What DALI is given: files that it decodes as Pillow does, and of all others the pixels that Pillow makes of them."""

from __future__ import annotations

from fastadv.data.transforms.decode import decode

_BEGINNINGS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM")  # of JPEG, PNG and BMP


def decoded_alike(encoded: bytes) -> bool:
    """Whether DALI reads files of this format as Pillow does.

    It knows no GIF and no AVIF. Of TIFF it refuses some files, and makes other pixels of Lab colours; 32-bit pixels,
    whose range nothing says, it takes for fractions.
    """
    is_webp = encoded[:4] == b"RIFF" and encoded[8:12] == b"WEBP"
    return encoded.startswith(_BEGINNINGS) or is_webp


def pixels_as_file(encoded: bytes) -> bytes:
    """An image as the file of uncompressed pixels that Pillow decodes it to; DALI makes those pixels of it.

    Raises:
        ValueError: Pillow cannot decode it; the message has the reason.
    """
    pixels = decode(encoded).permute(1, 2, 0)  # [H, W, 3]
    height, width, _ = pixels.shape
    return b"P6 %d %d 255\n" % (width, height) + pixels.numpy().tobytes()
