"""PixelSpace: exact bounds, conversion, and the check against wrong normalisation."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from fractions import Fraction
from functools import partial

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from fastadv import PixelSpace, TruncatedNormalEps, attacks, ops, reference
from fastadv.data import ImageSet, TensorLoader
from fastadv.evaluate import evaluate
from fastadv.pixels import IMAGENET_MEAN, IMAGENET_STD
from fastadv.train import AdversarialTask
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


def test_what_is_suspected_is_said_in_pixels() -> None:
    """Each channel's own: 0 is 10 in the first and 100 in the second, 1 is 12 and 104."""
    images = torch.tensor([0.0, 1.0]).expand(1, 2, 1, 2)
    with pytest.warns(UserWarning, match=r"that is only \[10, 104\] of the pixel range \[0, 255\]"):
        PixelSpace([10.0, 100.0], [2.0, 4.0]).check(images)


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
        (PixelSpace(0.0, 1.0, 0.0, 2.0**24 + 1), "PixelSpace(mean=0.0, std=1.0, lower=0, upper=16777217)"),
        (PixelSpace(0.0, 2.0, 0.1, 1 / 3), "PixelSpace(mean=0.0, std=2.0, lower=0.1, upper=0.3333333333333333)"),
    ],
)
def test_spaces_print_themselves(space: PixelSpace, text: str) -> None:
    assert repr(space) == text


def noise_in(space: PixelSpace, images: torch.Tensor) -> None:
    ops.noise_step_(images, images, 1.0, "sign", space=space)


@pytest.mark.parametrize(
    ("space", "refused"),
    [
        (PixelSpace(0.0, 1.0, upper=65535.0), {torch.float16}),  # pixels of 16 bits
        (PixelSpace([0.0, 0.0], [1.0, 2.0], upper=131_008.0), {torch.float16}),  # the first channel alone
        (PixelSpace(0.0, 1e12), {torch.float16}),  # 2.55e-10 is 0
        (PixelSpace(0.0, 1.0, upper=1e39), {torch.float32, torch.bfloat16, torch.float16}),
        (PixelSpace(0.0, 1.0, upper=65504.0), set()),
    ],
)
def test_a_dtype_that_does_not_hold_the_inputs_is_refused_alone(space: PixelSpace, refused: set[torch.dtype]) -> None:
    for dtype in DTYPES:
        images = torch.zeros(1, space.channels, 2, 2, dtype=dtype)
        if dtype not in refused:
            assert ops.sign_step_(images, images, torch.ones_like(images), 3.0, 3.0, space).max() > 0
            space.check(images)
            continue
        for use in (space.check, partial(space.from_pixels, dtype=dtype), partial(noise_in, space)):
            with pytest.raises(
                TypeError, match=f"{dtype} cannot represent the inputs of PixelSpace.*use a wider dtype"
            ):
                use(images)


def test_a_space_that_no_dtype_holds() -> None:
    with pytest.raises(ValueError, match="no dtype can represent the inputs"):
        PixelSpace([0.0, 0.0], [1e-300, 2.0], upper=1e100)


def test_pixels_of_16_bits() -> None:
    """One step by eps, written out; and nothing that takes them for pixels of 8."""
    space = PixelSpace(0.0, 65535.0, upper=65535.0)  # input in [0, 1]
    images = space.from_pixels(torch.tensor([0, 300, 65535], dtype=torch.int32).view(1, 1, 1, 3))
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3, 2))
    adv = attacks.FGSM(model, eps=1000, space=space)(images, torch.tensor([0]))
    moved = space.to_pixels(adv) - space.to_pixels(images)
    assert set(moved.round().flatten().tolist()) <= {-1000.0, -300.0, 0.0, 1000.0} and adv.max() <= 1
    with pytest.warns(UserWarning, match=r"less than one grey level of 255; .* on a \[0, 255\] scale is eps = 4112"):
        attacks.FGSM(model, eps=16, space=space)
    with pytest.raises(ValueError, match=r"uint8 holds 0..255, and the pixels .* are in \[0, 65535\]"):
        space.to_uint8(images)


def test_as_many_channels_as_there_are_with_one_constant() -> None:
    """It is one number; with constants that differ, there is a limit, which the message names."""
    pixels = torch.randint(0, 256, (2, 40, 4, 4), dtype=torch.uint8)
    one, many = PixelSpace(3.0, 2.0), PixelSpace([3.0] * 40, [2.0] * 40)
    images = many.from_pixels(pixels)
    assert torch.equal(images, one.from_pixels(pixels))
    grad = torch.randn(images.shape)
    for step in (
        lambda x, space: ops.sign_step_(x, x, grad, 2.0, 2.0, space),
        lambda x, space: ops.normalized_step_(x, x, grad, 2.0, 2.0, "l2", space),
        lambda x, space: ops.noise_step_(x, x, 2.0, "uniform", 1, 0, space),
        lambda x, space: ops.from_pixels_(x, pixels, None, space),
    ):
        assert torch.equal(step(images.clone(), many), step(images.clone(), one))
    with pytest.raises(ValueError, match=r"of 40 channels needs images \[N, 40, ...\], got \[2, 39, 4, 4\]"):
        ops.sign_step_(images[:, :39].clone(), images[:, :39], grad[:, :39], 2.0, 2.0, many)
    with pytest.raises(ValueError, match="at most 32 channels can have constants of their own, got 40"):
        ops.sign_step_(images.clone(), images, grad, 2.0, 2.0, PixelSpace([3.0] * 40, [2.0] * 39 + [3.0]))


def under_other_defaults() -> None:
    """Spaces, operators, their specification, an attack and an evaluation, of tensors on the CPU in float32."""
    cpu, generator = torch.device("cpu"), torch.Generator("cpu").manual_seed(0)
    space = PixelSpace.normalized([0.4, 0.5, 0.6], [0.2, 0.3, 0.25])
    images = space.from_pixels(torch.randint(0, 256, (4, 3, 5, 5), generator=generator, device=cpu, dtype=torch.uint8))
    labels = torch.zeros(4, dtype=torch.int64, device=cpu)
    assert images.dtype == space.to_pixels(images).dtype == torch.float32
    for module in (ops, reference):
        x = images.clone()
        module.noise_step_(x, images, 4.0, "truncated_normal", 1, 0, space)
        module.sign_step_(x, images, images, 2.0, 4.0, space)
        assert module.sample_eps(4, 8.0, 16.0, 1, 0, device=cpu).dtype == torch.float32
        module.target_grad(images.flatten(1), "random", None, 0.0, 1, 0)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(75, 7)).to_empty(device=cpu).float()
    model[1].weight.data = torch.arange(7 * 75, dtype=torch.float32, device=cpu).sin().view(7, 75)
    torch.nn.init.zeros_(model[1].bias)
    for name in attacks.names():
        assert attacks.create(name, model, eps=4, space=space, seed=1)(images, labels).dtype == torch.float32
    sizes = TruncatedNormalEps(sigma=4, upper=8)
    for name in ("pgd", "iter_ll", "step_ll"):
        assert not torch.equal(attacks.create(name, model, eps=sizes, space=space, seed=1)(images, labels), images)
    assert evaluate(model, [(images, labels)], attack="pgd", eps=4, space=space).n == 4
    AdversarialTask(model, k=2, space=space, seed=1)(images, labels).backward()
    pixels = ImageSet(space.to_uint8(images), labels, ("0",))
    loader = TensorLoader(pixels, 2, space=space, crop_padding=1, flip=True)
    assert all(len(x) == len(y) == 2 and x.dtype == torch.float32 for x, y in loader.epoch(0))


@pytest.mark.parametrize("device", ["meta", "cpu"])
def test_another_default_device(device: str) -> None:
    torch.set_default_device(device)
    try:
        under_other_defaults()
    finally:
        torch.set_default_device(None)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16], ids=str)
def test_another_default_dtype(dtype: torch.dtype) -> None:
    torch.set_default_dtype(dtype)
    try:
        under_other_defaults()
    finally:
        torch.set_default_dtype(torch.float32)


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
