"""Decoding with Pillow: levels computed by hand, and refusals."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from fastadv.data.transforms.decode import decode, reason_against
from tests.data.pictures import encoded


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("order", ["<u2", ">u2"])
def test_grey_of_16_bits_is_rounded_to_8(kind: str, order: str) -> None:
    """257 of the 65,536 levels become one of 256; the boundary of 0 and 1 is between 128 and 129."""
    levels = np.array([[0, 128, 129, 385, 386, 32767, 32768, 65406, 65407, 65535]], np.uint16)
    pixels = decode(encoded(Image.fromarray(levels.astype(order)), kind))
    assert pixels.tolist() == [[[0, 0, 1, 1, 2, 127, 128, 254, 255, 255]]] * 3


@pytest.mark.parametrize(("dtype", "mode"), [(np.int32, "I"), (np.float32, "F")])
def test_pixels_of_32_bits_are_refused(dtype: type, mode: str) -> None:
    """Nothing says whether white is 1, 255, 65535 or 2^31 - 1."""
    said = reason_against(encoded(Image.fromarray(np.ones((4, 4), dtype)), "TIFF"))
    assert said == f"its pixels have 32 bits (Pillow's mode {mode}) and an unknown range"


def test_more_pixels_than_pillow_takes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused because of the header, before memory is allocated."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)
    said = reason_against(encoded(Image.new("L", (20, 20)), "PNG"))
    assert said is not None and "400 pixels" in said and "limit of 100 pixels" in said
