"""PixelSpace: exact bounds, conversion, and the check against wrong normalisation."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from fractions import Fraction

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from fastadv import PixelSpace
from fastadv.pixels import IMAGENET_MEAN, IMAGENET_STD
from tests.ops.cases import DTYPES, SPACES


@pytest.mark.parametrize(
    ("space", "pixel", "value"),
    [
        (PixelSpace.raw(), 200.0, 200.0),
        (PixelSpace.unit(), 51.0, 0.2),
        (PixelSpace.symmetric(), 0.0, -1.0),
        (PixelSpace.symmetric(), 255.0, 1.0),
        (PixelSpace.imagenet(), 123.675, 0.0),
        (PixelSpace(10.0, 2.0), 30.0, 10.0),
    ],
)
def test_conversion_by_hand(space: PixelSpace, pixel: float, value: float) -> None:
    images = space.from_pixels(torch.full((1, 3, 1, 1), pixel))
    assert images[0, 0, 0, 0].item() == pytest.approx(value, abs=1e-6)
    torch.testing.assert_close(space.to_pixels(images)[0, 0], torch.full((1, 1), pixel))


@pytest.mark.parametrize("space", [*SPACES.values(), PixelSpace([1.0, 2.0], [3.0, 7.0], 10.0, 200.0)], ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_bounds_are_the_tightest_inside_the_range(space: PixelSpace, dtype: torch.dtype) -> None:
    lower, upper = space.bounds(dtype)
    for mean, std, low, high in zip(space.mean, space.std, lower, upper, strict=True):
        exact_low, exact_high = (
            (Fraction(side) - Fraction(mean)) / Fraction(std) for side in (space.lower, space.upper)
        )
        assert Fraction(low) >= exact_low and Fraction(high) <= exact_high
        stored = torch.tensor([low, high], dtype=torch.float64).to(dtype)
        beyond = torch.nextafter(stored, torch.tensor([-float("inf"), float("inf")], dtype=dtype))
        assert Fraction(beyond[0].item()) < exact_low and Fraction(beyond[1].item()) > exact_high


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_uint8_value_comes_back(space: PixelSpace, dtype: torch.dtype) -> None:
    pixels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(1, 3, 16, 16)
    images = space.from_pixels(pixels, dtype)
    if dtype in (torch.float32, torch.float64):
        assert torch.equal(space.to_uint8(images), pixels)
    space.check(images)


def formula(space: PixelSpace, pixels: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Each value in float64, rounded once and clipped to the bounds."""
    mean, std = (torch.tensor(values, dtype=torch.float64).view(-1, 1, 1) for values in (space.mean, space.std))
    lower, upper = (torch.tensor(b, dtype=torch.float64).view(-1, 1, 1).to(dtype) for b in space.bounds(dtype))
    return ((pixels.double() - mean) / std).to(dtype).clamp(lower, upper)


LAYOUTS = {
    "contiguous": lambda pixels: pixels,
    "channels_last": lambda pixels: pixels.contiguous(memory_format=torch.channels_last),
    "every other column": lambda pixels: pixels[..., ::2],
    "one row for all": lambda pixels: pixels[:, :, :1].expand(-1, -1, 5, -1),
    "no image": lambda pixels: pixels[:0],
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    "space", [*SPACES.values(), PixelSpace([1.0, 2.0, 3.0], [3.0, 7.0, 0.3], 10.0, 200.0)], ids=str
)
def test_values_of_bytes_are_those_of_the_formula(
    space: PixelSpace, dtype: torch.dtype, layout: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    """To the last bit, in the layout of the pixels, for all 256 values of each channel."""
    every = torch.arange(256, dtype=torch.uint8)
    pixels = layout(torch.stack([every, every.flip(0), every.roll(9)]).view(1, 3, 16, 16).repeat(2, 1, 1, 1))
    images, expected = space.from_pixels(pixels, dtype), formula(space, pixels, dtype)
    assert images.dtype == dtype and torch.equal(images, expected)
    assert images.stride() == pixels.to(torch.int32).stride()
    assert torch.equal(space.from_pixels(pixels.int(), dtype), expected)


def test_values_of_bytes_are_nobodys_to_change() -> None:
    pixels = torch.zeros(1, 3, 4, 4, dtype=torch.uint8)
    with torch.inference_mode():
        PixelSpace(7.0, 9.0).from_pixels(pixels).fill_(3)
    images = PixelSpace(7.0, 9.0).from_pixels(pixels)
    assert not images.is_inference() and (images == PixelSpace(7.0, 9.0).bounds(torch.float32)[0][0]).all()


def test_more_channels_than_the_operator_has_tables_for() -> None:
    space = PixelSpace([float(c) for c in range(33)], 9.0)
    pixels = torch.randint(0, 256, (2, 33, 4, 4), dtype=torch.uint8)
    assert torch.equal(space.from_pixels(pixels), formula(space, pixels, torch.float32))


def test_bytes_need_the_channels_of_the_space() -> None:
    with pytest.raises(ValueError, match=r"of 3 channels needs images \[N, 3, ...\], got \[2, 1, 4, 4\]"):
        PixelSpace.imagenet().from_pixels(torch.zeros(2, 1, 4, 4, dtype=torch.uint8))


@pytest.mark.parametrize(
    ("images", "space"),
    [
        (torch.rand(2, 3, 4, 4) * 255, PixelSpace.unit()),
        (torch.rand(2, 3, 4, 4) * 2 - 1, PixelSpace.unit()),
        (torch.randn(2, 3, 4, 4) * 2, PixelSpace.symmetric()),
        (torch.rand(2, 3, 4, 4) * 255, PixelSpace.imagenet()),
        (torch.rand(2, 1, 4, 4), PixelSpace.imagenet()),
    ],
)
def test_check_finds_the_wrong_normalisation(images: torch.Tensor, space: PixelSpace) -> None:
    with pytest.raises(ValueError, match="PixelSpace"):
        space.check(images)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_check_calls_what_is_not_finite_by_its_name(value: float, space: PixelSpace) -> None:
    images = space.from_pixels(torch.full((2, 3, 4, 4), 100.0))
    images[1, 2, 3, 3] = value
    with pytest.raises(ValueError, match="images hold values that are not finite"):
        space.check(images)


def test_check_knows_a_single_image_by_its_shape() -> None:
    with pytest.raises(ValueError, match=r"needs images \[N, 3, ...\], got \[3, 4, 4\].*images\[None\]"):
        PixelSpace.imagenet().check(torch.rand(3, 4, 4))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("space", "warns"), [("raw", 1), ("unit", 0), ("symmetric", 1), ("imagenet", 1)])
def test_images_not_yet_normalised_are_suspected(space: str, warns: int, dtype: torch.dtype) -> None:
    """They lie inside every wider space, so that nothing else would show the mistake."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        SPACES[space].check(torch.rand(2, 3, 4, 4).to(dtype))
        SPACES[space].check(torch.zeros(2, 3, 4, 4).to(dtype))  # black, or grey: no evidence
    assert len(caught) == warns
    assert all("on a [0, 1] scale" in str(warning.message) and warning.filename == __file__ for warning in caught)


def test_check_allows_the_rounding_of_usual_preprocessing() -> None:
    unit = torch.tensor([0.0, 1.0]).expand(1, 3, 1, 2)
    mean, std = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    for dtype in DTYPES:
        PixelSpace.imagenet().check(((unit - mean) / std).to(dtype))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mean": 0.0, "std": 0.0}, "std must be positive"),
        ({"mean": 0.0, "std": -1.0}, "std must be positive"),
        ({"mean": [0.0, 1.0], "std": [1.0, 1.0, 1.0]}, "same number of channels"),
        ({"mean": float("nan"), "std": 1.0}, "mean must be finite"),
        ({"mean": 0.0, "std": 1.0, "lower": 255.0, "upper": 0.0}, "lower must be below upper"),
        ({"mean": [], "std": []}, "at least one channel"),
        ({"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}, r"PixelSpace.normalized\(mean, std\)"),
        ({"mean": 0.5, "std": 0.5}, r"PixelSpace.normalized\(mean, std\)"),
    ],
)
def test_wrong_spaces(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PixelSpace(**arguments)


@pytest.mark.parametrize(
    ("mean", "std", "space"),
    [
        (0, 1, PixelSpace.unit()),
        (0.5, 0.5, PixelSpace.symmetric()),
        ([0.485, 0.456, 0.406], (0.229, 0.224, 0.225), PixelSpace.imagenet()),
        (0.1307, 0.3081, PixelSpace(33.3285, 78.5655)),
    ],
)
def test_constants_of_a_unit_scale(mean: float, std: float, space: PixelSpace) -> None:
    """torchvision's Normalize, by hand; equal to the last bit, although 255 * 0.224 is not 57.12 in binary."""
    assert PixelSpace.normalized(mean, std) == space


@pytest.mark.parametrize("wrong", [{"mean": 0.5, "std": 0.0}, {"mean": float("nan"), "std": 0.5}])
def test_wrong_constants_of_a_unit_scale(wrong: dict) -> None:
    with pytest.raises(ValueError, match=r"must be (positive and )?finite"):
        PixelSpace.normalized(**wrong)


@pytest.mark.parametrize(
    ("space", "text"),
    [
        (PixelSpace.raw(), "PixelSpace.raw()"),
        (PixelSpace(IMAGENET_MEAN, IMAGENET_STD), "PixelSpace.imagenet()"),
        (PixelSpace([10.0, 10.0], [2.0, 2.0]), "PixelSpace(mean=10.0, std=2.0)"),
        (PixelSpace(0.0, 1.0, 0.0, 1.0), "PixelSpace(mean=0.0, std=1.0, lower=0, upper=1)"),
    ],
)
def test_spaces_print_themselves(space: PixelSpace, text: str) -> None:
    assert repr(space) == text


def test_spaces_compare_and_hash_by_value() -> None:
    assert PixelSpace(0, 255) == PixelSpace.unit() and hash(PixelSpace(0, 255)) == hash(PixelSpace.unit())
    assert PixelSpace(0.0, [1.0, 2.0]).mean == (0.0, 0.0)


class Conversion(torch.nn.Module):
    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return PixelSpace.imagenet().from_pixels(pixels)


def test_what_is_traced_is_the_formula() -> None:
    """A compiled conversion gives the same values; an exported one needs nothing of this package."""
    pixels = torch.randint(0, 256, (2, 3, 4, 4), dtype=torch.uint8)
    expected = Conversion()(pixels)
    assert torch.equal(torch.compile(Conversion(), fullgraph=True, backend="aot_eager")(pixels), expected)
    exported = torch.export.export(Conversion(), (pixels,))
    assert torch.equal(exported.module()(pixels), expected)
    assert not [node for node in exported.graph.nodes if "fastadv" in str(node.target)]


def test_fake_pixels_become_fake_images() -> None:
    with FakeTensorMode():
        fake = PixelSpace.imagenet().from_pixels(torch.empty(2, 3, 4, 4, dtype=torch.uint8), torch.bfloat16)
    assert fake.shape == (2, 3, 4, 4) and fake.dtype == torch.bfloat16
