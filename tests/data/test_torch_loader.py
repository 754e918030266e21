"""TensorLoader: the content of batches, and an order that depends on (seed, epoch) alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from fastadv.data import ImageSet, TensorLoader
from fastadv.data.transforms.pad_crop import draw_mirrored, draw_shifts, pad_and_crop
from fastadv.pixels import PixelSpace

Batch = tuple[Tensor, Tensor]


def image_set(count: int, channels: int = 1, size: int = 4) -> ImageSet:
    """All pixels of image n are n; its label is n % 10."""
    images = torch.arange(count, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, channels, size, size).contiguous()
    return ImageSet(images, torch.arange(count) % 10, tuple("0123456789"))


def noise_set(count: int, channels: int = 3, size: int = 6) -> ImageSet:
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(256, (count, channels, size, size), dtype=torch.uint8, generator=generator)
    return ImageSet(images, torch.arange(count) % 10, tuple("0123456789"))


def order(loader: TensorLoader, epoch: int, start: int = 0) -> list[list[int]]:
    return [loader.indices.tolist() for _ in loader.epoch(epoch, start)]


def same(left: Iterator[Batch], right: Iterator[Batch]) -> bool:
    return all(
        torch.equal(a[0], b[0]) and torch.equal(a[1], b[1]) for a, b in zip(list(left), list(right), strict=True)
    )


# --- batches --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "batch_size", "drop_last", "sizes"),
    [
        (10, 4, True, [4, 4]),
        (10, 4, False, [4, 4, 2]),
        (8, 4, True, [4, 4]),
        (8, 4, False, [4, 4]),
        (4, 4, True, [4]),
        (3, 4, False, [3]),
        (0, 4, False, []),
    ],
)
def test_sizes(count: int, batch_size: int, drop_last: bool, sizes: list[int]) -> None:
    loader = TensorLoader(image_set(count), batch_size, space=PixelSpace.raw(), drop_last=drop_last)
    assert len(loader) == len(sizes)
    assert [(len(images), len(labels)) for images, labels in loader.epoch(0)] == [(size, size) for size in sizes]


def test_without_shuffle_in_the_order_of_the_data() -> None:
    loader = TensorLoader(image_set(7), 3, space=PixelSpace.raw(), shuffle=False, drop_last=False)
    assert order(loader, 0) == order(loader, 5) == [[0, 1, 2], [3, 4, 5], [6]]


def test_an_epoch_is_a_permutation_and_indices_describe_the_batch() -> None:
    loader = TensorLoader(image_set(20), 6, space=PixelSpace.raw(), drop_last=False)
    assert loader.indices.tolist() == []
    seen = []
    for images, labels in loader.epoch(3):
        assert images[:, 0, 0, 0].tolist() == loader.indices.tolist()
        assert labels.tolist() == [index % 10 for index in loader.indices.tolist()]
        seen += loader.indices.tolist()
    assert sorted(seen) == list(range(20))
    assert seen != list(range(20))


@pytest.mark.parametrize(
    ("space", "pixel", "expected"),
    [
        (PixelSpace.raw(), 200, [200.0, 200.0, 200.0]),
        (PixelSpace.unit(), 51, [0.2, 0.2, 0.2]),
        (PixelSpace.symmetric(), 255, [1.0, 1.0, 1.0]),
        (PixelSpace((10.0, 20.0, 30.0), (1.0, 2.0, 4.0)), 50, [40.0, 15.0, 5.0]),
    ],
)
def test_conversion_to_the_models_input(space: PixelSpace, pixel: int, expected: list[float]) -> None:
    images = torch.full((1, 3, 2, 2), pixel, dtype=torch.uint8)
    loader = TensorLoader(ImageSet(images, torch.zeros(1, dtype=torch.int64), ("only",)), 1, space=space)
    ((batch, _),) = loader.epoch(0)
    assert batch.dtype == torch.float32
    assert torch.equal(batch[0, :, 0, 0], torch.tensor(expected))


def test_repr_shows_the_settings() -> None:
    shown = repr(TensorLoader(image_set(20), 6, space=PixelSpace.raw(), seed=9, flip=True))
    assert (
        "20 images [1, 4, 4], Batches(count=20, batch_size=6, shuffle=True, drop_last=True, seed=9" in shown
        and "flip=True" in shown
    )


# --- order ----------------------------------------------------------------------------------------------------------


def test_order_depends_on_seed_and_epoch() -> None:
    def of(seed: int, epoch: int) -> tuple[int, ...]:
        return tuple(order(TensorLoader(image_set(100), 100, space=PixelSpace.raw(), seed=seed), epoch)[0])

    keys = [(0, 0), (0, 1), (1, 0), (1, 1), (0, 2), (2, 0), (2**32, 0), (2**32 + 1, 0), (0, 2**32)]
    assert len({of(*key) for key in keys}) == len(keys)
    assert of(1, 2) == of(1, 2)


@pytest.mark.parametrize("augment", [{}, {"crop_padding": 2, "flip": True}], ids=["plain", "augmented"])
@pytest.mark.parametrize("start", [0, 1, 3, 4])
def test_a_resumed_epoch_continues_with_the_same_batches(start: int, augment: dict[str, int]) -> None:
    def loader() -> TensorLoader:
        return TensorLoader(noise_set(18), 5, space=PixelSpace.unit(), drop_last=False, **augment)

    whole = list(loader().epoch(2))
    assert same(loader().epoch(2, start), iter(whole[start:]))


def test_two_epochs_read_in_turns_do_not_disturb_each_other() -> None:
    loader = TensorLoader(noise_set(12), 4, space=PixelSpace.unit(), flip=True)
    turns = list(zip(loader.epoch(0), loader.epoch(1), strict=True))
    assert same(iter([first for first, _ in turns]), loader.epoch(0))
    assert same(iter([second for _, second in turns]), loader.epoch(1))


def test_global_generators_are_neither_read_nor_moved() -> None:
    def batches() -> list[Batch]:
        return list(TensorLoader(noise_set(12), 4, space=PixelSpace.unit(), crop_padding=2, flip=True).epoch(0))

    torch.manual_seed(0)
    np.random.seed(0)
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].tolist()
    first = batches()
    assert torch.equal(torch.get_rng_state(), before) and np.random.get_state()[1].tolist() == numpy_before
    torch.manual_seed(1)
    assert same(iter(first), iter(batches()))


# --- several processes -----------------------------------------------------------------------------------------------


def ranks(source: ImageSet, world_size: int, batch_size: int, **options: object) -> list[TensorLoader]:
    return [
        TensorLoader(source, batch_size, space=PixelSpace.unit(), rank=rank, world_size=world_size, **options)
        for rank in range(world_size)
    ]


def test_a_process_takes_its_rows_of_each_global_batch() -> None:
    (alone,), pair = ranks(image_set(19), 1, 8), ranks(image_set(19), 2, 4)
    assert [len(loader) for loader in (alone, *pair)] == [2, 2, 2]
    first, second = (order(loader, 1) for loader in pair)
    assert [left + right for left, right in zip(first, second, strict=True)] == order(alone, 1)


@pytest.mark.parametrize(("world_size", "batch_size"), [(2, 6), (3, 4), (4, 3), (12, 1)])
@pytest.mark.parametrize("start", [0, 2])
def test_the_global_batches_do_not_depend_on_the_number_of_processes(
    world_size: int, batch_size: int, start: int
) -> None:
    augment = {"crop_padding": 2, "flip": True, "seed": 5}
    (alone,) = ranks(noise_set(50), 1, 12, **augment)
    shares = [loader.epoch(3, start) for loader in ranks(noise_set(50), world_size, batch_size, **augment)]
    together = [[torch.cat(parts) for parts in zip(*batches, strict=True)] for batches in zip(*shares, strict=True)]
    assert same(iter(together), alone.epoch(3, start))


def test_augmentation_belongs_to_the_image() -> None:
    """Two accumulated minibatches have the examples of one of twice the size."""
    augment = {"crop_padding": 2, "flip": True}
    ((whole, _),) = list(ranks(noise_set(8), 1, 8, **augment)[0].epoch(0))
    halves = [images for images, _ in ranks(noise_set(8), 1, 4, **augment)[0].epoch(0)]
    assert torch.equal(torch.cat(halves), whole)


@pytest.mark.parametrize(
    ("count", "sizes"),
    [
        (16, [[4, 4], [4, 4]]),
        (19, [[4, 4, 1], [4, 4, 2]]),
        (9, [[4], [4, 1]]),  # one image is left for two processes
        (1, [[], [1]]),
        (0, [[], []]),
    ],
)
def test_evaluation_reads_each_image_once(count: int, sizes: list[list[int]]) -> None:
    loaders = ranks(image_set(count), 2, 4, shuffle=False, drop_last=False)
    assert [[len(labels) for _, labels in loader.epoch(0)] for loader in loaders] == sizes
    assert [len(loader) for loader in loaders] == [len(batches) for batches in sizes]
    seen = [index for loader in loaders for batch in order(loader, 0) for index in batch]
    assert sorted(seen) == list(range(count))


# --- augmentation ---------------------------------------------------------------------------------------------------


def test_shifts_cut_windows_of_the_padded_image() -> None:
    images = noise_set(64).images  # [64, 3, 6, 6]
    cropped = pad_and_crop(images, 2, draw_shifts(64, 2, torch.Generator().manual_seed(0)))
    assert cropped.shape == images.shape and cropped.dtype == torch.uint8
    padded = torch.zeros(64, 3, 10, 10, dtype=torch.uint8)
    padded[:, :, 2:8, 2:8] = images
    shifts = set()
    for crop, source in zip(cropped, padded, strict=True):
        matches = [
            (top, left)
            for top in range(5)
            for left in range(5)
            if torch.equal(crop, source[:, top : top + 6, left : left + 6])
        ]
        assert len(matches) == 1
        shifts.update(matches)
    assert {top for top, _ in shifts} == {left for _, left in shifts} == set(range(5))
    assert len(shifts) > 15  # the two directions are drawn apart


def test_half_of_the_images_are_mirrored() -> None:
    source = noise_set(200)
    which = draw_mirrored(200, torch.Generator().manual_seed(0))
    assert 70 <= int(which.sum()) <= 130
    ((images, _),) = TensorLoader(source, 200, space=PixelSpace.raw(), shuffle=False, flip=True).epoch(0)
    mirrored = (images == source.images.flip(-1)).flatten(1).all(1)  # [N]
    assert 70 <= int(mirrored.sum()) <= 130
    assert torch.equal(images[~mirrored], source.images[~mirrored].float())


@pytest.mark.parametrize(
    ("option", "augment"),
    [({"flip": True}, lambda images: images.flip(-1)), ({"crop_padding": 1}, None)],
    ids=["flip", "crop"],
)
def test_each_switch_augments_alone(option: dict[str, int], augment: Callable[[Tensor], Tensor] | None) -> None:
    source = noise_set(40)
    loader = TensorLoader(source, 40, space=PixelSpace.raw(), shuffle=False, **option)
    ((images, _),), ((later, _),) = loader.epoch(0), loader.epoch(1)
    changed = (images != source.images).flatten(1).any(1)  # [N]
    assert 0 < int(changed.sum()) < 40
    assert not torch.equal(images, later)
    if augment is not None:
        assert torch.equal(images[changed], augment(source.images)[changed].float())


def test_batches_are_augmented_differently() -> None:
    images = noise_set(1).images.expand(64, -1, -1, -1)
    repeated = ImageSet(images, torch.zeros(64, dtype=torch.int64), ("only",))
    loader = TensorLoader(repeated, 32, space=PixelSpace.raw(), crop_padding=2)
    (first, _), (second, _) = loader.epoch(0)
    assert not torch.equal(first, second)


# --- mistakes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        (
            {"batch_size": 21},
            r"the training set has 20 images, fewer than a batch of 21, .*choose a smaller batch_size \(--minibatch\)",
        ),
        ({"rank": 2, "world_size": 2}, r"rank must be one of 2 processes, 0\.\.1, got 2"),
        ({"rank": -1}, r"rank must be one of 1 processes, 0\.\.0, got -1"),
        ({"batch_size": 11, "world_size": 2}, "20 images, fewer than a batch of 11 on each of 2 processes"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ({"crop_padding": -2}, "crop_padding must be at least 0, got -2"),
        ({"space": PixelSpace.imagenet()}, "the images have 1 channel and the space describes 3"),
    ],
)
def test_constructor_refuses(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TensorLoader(image_set(20), **{"batch_size": 4, "space": PixelSpace.unit(), **options})


@pytest.mark.parametrize(
    ("epoch", "start", "message"),
    [
        (-1, 0, "epoch must be at least 0, got -1"),
        (0, -1, r"start must be a batch of the epoch, 0\.\.5, got -1"),
        (0, 6, r"start must be a batch of the epoch, 0\.\.5, got 6"),
    ],
)
def test_epoch_refuses_before_the_first_batch(epoch: int, start: int, message: str) -> None:
    loader = TensorLoader(image_set(20), 4, space=PixelSpace.unit())
    with pytest.raises(ValueError, match=message):
        loader.epoch(epoch, start)


@pytest.mark.gpu
def test_same_batches_on_cuda() -> None:
    options = {"space": PixelSpace.imagenet(), "crop_padding": 2, "flip": True}
    on_cpu, on_cuda = (TensorLoader(noise_set(20), 8, device=device, **options) for device in ("cpu", "cuda"))
    for (images, labels), (cuda_images, cuda_labels) in zip(on_cpu.epoch(1), on_cuda.epoch(1), strict=True):
        assert cuda_images.is_cuda and cuda_labels.is_cuda and on_cuda.indices.is_cuda
        assert torch.equal(images, cuda_images.cpu()) and torch.equal(labels, cuda_labels.cpu())
        assert torch.equal(on_cpu.indices, on_cuda.indices.cpu())
