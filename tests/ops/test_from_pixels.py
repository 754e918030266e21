"""from_pixels and from_pixels_: values by hand, then bit for bit against the reference, at every edge and layout."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from benchmarks.operators import Operators
from fastadv import PixelSpace, ops, reference
from tests.ops.cases import DTYPES, SHAPES, SPACES, at_odd_offset

BLOCK = 256  # threads
GRID = 3 * BLOCK  # threads of the largest grid where the kernels run on a host
TILE = 32 * BLOCK  # pixels of a block's tile of a long run; runs of two tiles are looked up in tiles
EACH = PixelSpace((9.0, 8.0, 7.0), (3.0, 50.0, 200.0), 10.0, 200.0)  # bounds inside the values that bytes take


def random_pixels(shape: tuple[int, ...], channels_last: bool = False, offset: int = 0) -> Tensor:
    pixels = torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(len(shape)), dtype=torch.uint8)
    if channels_last:
        formats = {4: torch.channels_last, 5: torch.channels_last_3d}
        pixels = pixels.contiguous(memory_format=formats[len(shape)])
    return at_odd_offset(pixels, offset) if offset else pixels


def every_other(examples: int) -> Tensor:  # [N]
    return torch.arange(examples) % 2 == 1


def check(pixels: Tensor, mirrored: Tensor | None, dtype: torch.dtype, space: PixelSpace) -> None:
    images = ops.from_pixels(pixels, mirrored, dtype, space)
    assert images.dtype == dtype and torch.equal(images, reference.from_pixels(pixels, mirrored, dtype, space))
    assert images.stride() == pixels.stride()


# --- by hand ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("space", "expected"),
    [
        (PixelSpace.raw(), [0.0, 51.0, 255.0]),
        (PixelSpace.unit(), [0.0, 0.2, 1.0]),
        (PixelSpace.symmetric(), [-1.0, -0.6, 1.0]),
        (PixelSpace(55.0, 4.0), [-13.75, -1.0, 50.0]),
        (PixelSpace(0.0, 1.0, 10.0, 200.0), [10.0, 51.0, 200.0]),  # the bounds of the space
    ],
    ids=str,
)
def test_by_hand(space: PixelSpace, expected: list[float]) -> None:
    pixels = torch.tensor([0, 51, 255], dtype=torch.uint8).expand(2, 1, 1, 3)
    images = ops.from_pixels(pixels, torch.tensor([False, True]), space=space)
    torch.testing.assert_close(images[:, 0, 0], torch.tensor([expected, expected[::-1]]))


def test_channels_by_hand() -> None:
    pixels = torch.tensor([[10, 20], [30, 40]], dtype=torch.uint8).view(1, 2, 1, 2)
    space = PixelSpace((10.0, 20.0), (10.0, 5.0))
    for layout in (torch.contiguous_format, torch.channels_last):
        images = ops.from_pixels(pixels.contiguous(memory_format=layout), torch.tensor([True]), space=space)
        assert images[0, :, 0].tolist() == [[1.0, 0.0], [4.0, 2.0]]


# --- against the reference -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mirrored", [False, True], ids=["straight", "mirrored"])
@pytest.mark.parametrize("channels_last", [False, True], ids=["contiguous", "channels_last"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [*SHAPES, (2, 3, 0, 4)], ids=str)
def test_shapes_dtypes_layouts(shape: tuple[int, ...], dtype: torch.dtype, channels_last: bool, mirrored: bool) -> None:
    flags = every_other(shape[0]) if mirrored else None
    check(random_pixels(shape, channels_last), flags, dtype, SPACES["imagenet"])


@pytest.mark.parametrize("channels_last", [False, True], ids=["contiguous", "channels_last"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("space", [*SPACES.values(), EACH], ids=str)
def test_every_value_of_every_channel(space: PixelSpace, dtype: torch.dtype, channels_last: bool) -> None:
    every = torch.arange(256, dtype=torch.uint8)
    pixels = torch.stack([every, every.flip(0), every.roll(9)]).view(1, 3, 16, 16).repeat(3, 1, 1, 1)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    check(pixels.contiguous(memory_format=layout), every_other(3), dtype, space)


@pytest.mark.parametrize("channels_last", [False, True], ids=["contiguous", "channels_last"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("channels", [1, 2, 4, 5, 32])  # on a GPU, the tables of at most four are kept
def test_any_number_of_channels(channels: int, dtype: torch.dtype, channels_last: bool) -> None:
    space = PixelSpace([float(c) for c in range(channels)], [c + 2.0 for c in range(channels)])
    check(random_pixels((3, channels, 5, 7), channels_last), every_other(3), dtype, space)
    # Any more may share their constants.
    check(random_pixels((3, 2 * channels, 5, 7), channels_last), every_other(3), dtype, PixelSpace.unit())


@pytest.mark.parametrize("shape", [(4,), (4, 7), (2, 3, 5), (2, 3, 4, 4, 5)], ids=str)
def test_any_number_of_dimensions(shape: tuple[int, ...]) -> None:
    space = SPACES["imagenet"] if len(shape) > 2 else PixelSpace.unit()
    flags = every_other(shape[0]) if len(shape) > 2 else None
    check(random_pixels(shape), flags, torch.float32, space)
    if len(shape) == 5:
        check(random_pixels(shape, channels_last=True), flags, torch.float32, space)


def test_features_with_constants_of_their_own() -> None:
    check(random_pixels((5, 3)), None, torch.float32, EACH)


@pytest.mark.parametrize(
    "flags",
    [torch.tensor([0, 1, 255, 0], dtype=torch.uint8), torch.tensor([0, 9, 1, 9, 1, 9, 0, 9], dtype=torch.bool)[::2]],
    ids=["uint8", "strided"],
)
def test_flags_of_either_kind(flags: Tensor) -> None:
    pixels = random_pixels((4, 3, 5, 7))
    assert torch.equal(ops.from_pixels(pixels, flags), reference.from_pixels(pixels, flags))


@pytest.mark.parametrize("channels_last", [False, True], ids=["contiguous", "channels_last"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_unaligned_storage(dtype: torch.dtype, channels_last: bool) -> None:
    for offset in (1, 2, 4, 8):
        for flags in (None, every_other(3)):
            check(random_pixels((3, 3, 13, 11), channels_last, offset), flags, dtype, SPACES["imagenet"])


@pytest.mark.parametrize(
    "rearrange",
    [
        lambda t: t.transpose(2, 3),
        lambda t: t[..., ::2],
        lambda t: t[:, :, 1:],
        lambda t: t.contiguous(memory_format=torch.channels_last)[..., 1:],
        lambda t: t[:, :, :1].expand(-1, -1, 6, -1),
    ],
    ids=["transposed", "strided", "slice", "slice of channels_last", "expanded"],
)
def test_other_layouts_are_copied_once(rearrange: Callable[[Tensor], Tensor]) -> None:
    pixels, flags = rearrange(random_pixels((2, 3, 8, 6))), every_other(2)
    before = pixels.clone()
    images = ops.from_pixels(pixels, flags, space=EACH)
    assert torch.equal(images, reference.from_pixels(pixels, flags, space=EACH))
    assert images.is_contiguous() and torch.equal(pixels, before)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("channels_last", [False, True], ids=["contiguous", "channels_last"])
def test_images_that_are_there_are_filled(channels_last: bool, dtype: torch.dtype) -> None:
    """At any address, without writing next to them."""
    pixels, flags = random_pixels((3, 3, 7, 9), channels_last), every_other(3)
    expected = reference.from_pixels(pixels, flags, dtype, EACH)
    for offset in (1, 2, 3, 5):
        room = torch.full((pixels.numel() + 2 * offset,), 7.0, dtype=dtype)
        images = room.as_strided(pixels.shape, pixels.stride(), offset)
        assert ops.from_pixels_(images, pixels, flags, EACH) is images
        assert torch.equal(images, expected)
        assert (room[:offset] == 7).all() and (room[-offset:] == 7).all()


def test_an_image_is_put_into_a_batch_without_a_copy() -> None:
    """A single image as a batch has an arbitrary stride there, and a slice of a batch another."""
    pixels, images = random_pixels((2, 3, 8, 6), True), torch.zeros(2, 8, 6, 3).permute(0, 3, 1, 2)
    single, place = pixels[1][None], images[1:]
    assert single.stride() != place.stride()
    with Operators(place) as counted:
        ops.from_pixels_(place, single, space=EACH)
    assert list(counted.names) == ["fastadv::from_pixels_"]
    assert torch.equal(images[1:], reference.from_pixels(pixels[1:], space=EACH)) and (images[0] == 0).all()


def test_images_in_another_layout_than_the_pixels() -> None:
    pixels, flags = random_pixels((2, 3, 8, 6)), every_other(2)
    expected = reference.from_pixels(pixels, flags, space=EACH)
    for images in (
        torch.empty(2, 3, 8, 6).contiguous(memory_format=torch.channels_last),
        torch.empty(2, 3, 8, 12)[..., ::2],
    ):
        strides = images.stride()
        assert torch.equal(ops.from_pixels_(images, pixels, flags, EACH), expected) and images.stride() == strides


# --- edges -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_elements_around_the_packs(dtype: torch.dtype) -> None:
    width = 16 // dtype.itemsize
    for size in {1, 2, width - 1, width, width + 1, 3 * width + 1}:
        for examples in (1, 3):  # packs that span examples, and rows shorter than a pack
            for flags in (None, every_other(examples)):
                check(random_pixels((examples, 1, 1, max(size, 1))), flags, dtype, PixelSpace.unit())
                check(random_pixels((examples, 3, 2, max(size, 1)), True), flags, dtype, SPACES["imagenet"])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("threads", [BLOCK, GRID, 2 * GRID])
def test_packs_around_a_block_and_a_grid(threads: int, dtype: torch.dtype) -> None:
    for shift in (-1, 0, 1):
        size = threads * 16 // dtype.itemsize + shift
        check(random_pixels((1, 1, size)), torch.tensor([True]), dtype, PixelSpace.unit())


def check_at(
    pixels: Tensor, mirrored: Tensor | None, dtype: torch.dtype, space: PixelSpace, of_images: int, of_pixels: int
) -> None:
    """Pixels and images so many elements behind an aligned address, and nothing written beside the images."""
    room = torch.full((pixels.numel() + 2 * 16,), 7.0, dtype=dtype)
    images = room.as_strided(pixels.shape, pixels.stride(), 16 + of_images)
    ops.from_pixels_(images, at_odd_offset(pixels, of_pixels), mirrored, space)
    assert torch.equal(images, reference.from_pixels(pixels, mirrored, dtype, space))
    assert (room[: 16 + of_images] == 7).all() and (room[16 + of_images + pixels.numel() :] == 7).all()


# Rows shorter than a pack, around 16 elements, and odd ones; runs of two tiles and part of a third.
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    ("channels", "channels_last"),
    [(1, False), (3, False), (4, False), (3, True), (4, True)],
    ids=["1", "3", "4", "3 last", "4 last"],
)
@pytest.mark.parametrize("width", [1, 3, 4, 7, 8, 15, 16, 17, 31, 33, 299])
def test_rows_in_tiles(width: int, channels: int, channels_last: bool, dtype: torch.dtype) -> None:
    places = 2 * TILE // (channels if channels_last else 1)
    shape = (2, channels, -(-places // width) + 1, width)
    pixels = random_pixels(shape, channels_last)
    space = PixelSpace([9.0, 8.0, 7.0, 6.0][:channels], [3.0, 50.0, 200.0, 100.0][:channels])
    flags = torch.tensor([width % 2 == 0, width % 2 == 1])
    check_at(pixels, flags, dtype, space, width % 4, width % 4)


# Runs of whole tiles, of a tile more, and of one element or pack less or more, at every distance from 16 bytes.
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("channels_last", [False, True], ids=["contiguous", "channels_last"])
def test_runs_around_tiles(channels_last: bool, dtype: torch.dtype) -> None:
    width = 16 // dtype.itemsize
    sizes = [2 * TILE + tiles + more for tiles in (0, TILE) for more in (-width, -1, 0, 1, width + 1)]
    for offset, size in enumerate(sizes):
        pixels = random_pixels((2, 3, 1, -(-size // 3) if channels_last else size), channels_last)
        for flags in (None, every_other(2)):
            check_at(pixels, flags, dtype, EACH, offset % width, offset % width)
        check_at(pixels, None, dtype, EACH, 0, 0)  # as most batches are
    check_at(pixels, None, dtype, EACH, 1, 0)  # which can only be read byte by byte


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_tiles_of_channels_that_share_a_table(dtype: torch.dtype) -> None:
    pixels = random_pixels((2, 4, 67, 67), channels_last=True)
    for flags in (None, every_other(2)):
        check_at(pixels, flags, dtype, PixelSpace.symmetric(), 1, 1)
        check_at(pixels[:, :3].contiguous(memory_format=torch.channels_last), flags, dtype, PixelSpace.unit(), 0, 0)


@pytest.mark.parametrize("channels_last", [False, True], ids=["contiguous", "channels_last"])
def test_layout_and_threads_do_not_show(channels_last: bool) -> None:
    pixels, flags = random_pixels((6, 3, 150, 131), channels_last), every_other(6)
    threads = torch.get_num_threads()
    try:
        whole = []
        for number in (1, 2):
            torch.set_num_threads(number)
            whole.append(ops.from_pixels(pixels, flags, space=EACH))
        parts = [ops.from_pixels(pixels[rows], flags[rows], space=EACH) for rows in (slice(0, 1), slice(1, 6))]
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(whole[0], whole[1]) and torch.equal(whole[0], torch.cat(parts))
    assert torch.equal(whole[0], ops.from_pixels(pixels.contiguous(), flags, space=EACH))
