"""Convert files for DALI: formats that it decodes differently from Pillow are decoded by Pillow first."""

from __future__ import annotations

from fastadv.data.transforms.decode import decode

_MAGIC = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM")  # of JPEG, PNG and BMP


def decoded_alike(encoded: bytes) -> bool:
    """Whether DALI decodes files of this format as Pillow does.

    DALI does not support GIF and AVIF. It refuses some TIFF files, decodes Lab colours differently, and takes 32-bit
    pixels, whose range is unspecified, for fractions.
    """
    is_webp = encoded[:4] == b"RIFF" and encoded[8:12] == b"WEBP"
    return encoded.startswith(_MAGIC) or is_webp


def pixels_as_file(encoded: bytes) -> bytes:
    """Decode an image by Pillow and encode it as a file of uncompressed pixels (PPM), which DALI reads exactly.

    Raises:
        ValueError: if Pillow cannot decode it; the message has the reason.
    """
    pixels = decode(encoded).permute(1, 2, 0)  # [H, W, 3]
    height, width, _ = pixels.shape
    return b"P6 %d %d 255\n" % (width, height) + pixels.numpy().tobytes()
