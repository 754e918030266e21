"""DaliLoader and TorchvisionLoader: the same examples, crops and labels for all kinds of files."""

from __future__ import annotations

import io
import math
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torch import Tensor

from fastadv import data
from fastadv.data import DaliLoader, ImageLoader, Preprocessing, TorchvisionLoader
from fastadv.data.sources.base import Selection
from fastadv.data.transforms.preprocessing import NumPyArithmetic, central_window, random_window
from fastadv.pixels import PixelSpace
from tests.data.loaders import each, needs_dali
from tests.data.pictures import real_world, write_data_set, write_folder


class DaliAsOnAGpu(DaliLoader):
    """The GPU's pipeline on the CPU: DALI also resizes and colours."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._resize = True


SIZE = 48
SMALL = Preprocessing(size=SIZE, flip=True)
each_loader = each("kind", {"dali": DaliLoader, "dali as on a GPU": DaliAsOnAGpu, "torchvision": TorchvisionLoader})
each_dali = each("kind", {"dali": DaliLoader, "dali as on a GPU": DaliAsOnAGpu})


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    write_data_set(folder, per_class=8, classes=3)
    return folder


@pytest.fixture(scope="module")
def train(root: Path) -> data.ImageSource:
    return data.scan(root)["train"]


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> data.ImageSource:
    """Files of many kinds, in the order of ``real_world``."""
    folder = tmp_path_factory.mktemp("odd")
    for split in ("train", "val"):
        write_folder(folder / split, {"all": list(real_world().values())})
    return data.scan(folder)["val"]


def create(kind: type[ImageLoader], source: data.ImageSource, batch_size: int = 5, **options: Any) -> ImageLoader:
    usual = {"space": PixelSpace.raw(), "train": True, "preprocessing": SMALL, "workers": issubclass(kind, DaliLoader)}
    return kind(source, batch_size, **{**usual, **options})


def examples(loader: ImageLoader, epoch: int = 0, start: int = 0) -> dict[int, tuple[Tensor, int]]:
    """Image and label of each data-set index."""
    found = {}
    for images, labels in loader.epoch(epoch, start):
        assert len(images) == len(labels) == len(loader.indices)
        found |= {
            int(index): (image.clone(), int(label))
            for index, image, label in zip(loader.indices, images, labels, strict=True)
        }
    return found


# --- batches ---------------------------------------------------------------------------------------------------------


@each_loader
def test_what_a_batch_is(kind: type[ImageLoader], train: data.ImageSource) -> None:
    loader = create(kind, train)
    batches = list(loader.epoch(0))
    assert len(batches) == len(loader) == 4  # of 24 images
    for images, labels in batches:
        assert images.shape == (5, 3, SIZE, SIZE) and images.dtype == torch.float32
        assert images.is_contiguous(memory_format=torch.channels_last)
        assert labels.dtype == torch.int64
        assert images.min() >= 0 and images.max() <= 255 and images.std() > 10


@each_loader
def test_labels_and_indices_are_of_the_images(kind: type[ImageLoader], train: data.ImageSource) -> None:
    loader = create(kind, train, train=False)
    assert loader.indices.tolist() == []
    seen = []
    for _, labels in loader.epoch(0):
        assert labels.tolist() == train.labels[loader.indices].tolist()
        seen.append(loader.indices.tolist())
    assert seen == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9], [10, 11, 12, 13, 14], [15, 16, 17, 18, 19], [20, 21, 22, 23]]


@pytest.mark.parametrize(
    "space",
    [PixelSpace.unit(), PixelSpace.symmetric(), PixelSpace.imagenet(), PixelSpace((9.0, 8.0, 7.0), (3.0, 50.0, 200.0))],
    ids=str,
)
@each_loader
def test_images_are_in_the_space(kind: type[ImageLoader], space: PixelSpace, odd: data.ImageSource) -> None:
    raw, own = (create(kind, odd, len(odd), train=False, space=s) for s in (PixelSpace.raw(), space))
    ((pixels, _),), ((images, _),) = raw.epoch(0), own.epoch(0)
    assert torch.equal(images, space.from_pixels(pixels))  # to the last bit, and so within the bounds


@each("kind")
def test_a_batch_above_32_megabytes(kind: type[ImageLoader], train: data.ImageSource) -> None:
    """Its memory is allocated differently; it has the same content as small ones, and outlives the loader."""
    large = Preprocessing(size=384)
    (images, _), *_ = create(kind, train, 24, preprocessing=large).epoch(0)
    assert images.nbytes > 32 << 20 and images.is_contiguous(memory_format=torch.channels_last)
    small = [part for part, _ in create(kind, train, 8, preprocessing=large).epoch(0)]
    assert torch.equal(images, torch.cat(small))


@each_loader
def test_a_batch_belongs_to_who_asked_for_it(kind: type[ImageLoader], train: data.ImageSource) -> None:
    untouched = [images.clone() for images, _ in create(kind, train).epoch(0)]
    kept = []
    for images, _ in create(kind, train).epoch(0):
        images[:2] = -1.0  # as AdversarialTask writes the first k
        kept.append(images)
    for images, before in zip(kept, untouched, strict=True):
        assert (images[:2] == -1).all()
        assert torch.equal(images[2:], before[2:])


# --- independent of the order of requests ----------------------------------------------------------------------------


def same(left: dict[int, tuple[Tensor, int]], right: dict[int, tuple[Tensor, int]]) -> bool:
    return left.keys() == right.keys() and all(
        torch.equal(left[i][0], right[i][0]) and left[i][1] == right[i][1] for i in left
    )


@each_loader
def test_examples_do_not_depend_on_batches_workers_or_processes(
    kind: type[ImageLoader], train: data.ImageSource
) -> None:
    whole = examples(create(kind, train, 12))
    assert len(whole) == 24
    assert same(whole, examples(create(kind, train, 4, workers=2, prefetch=1)))
    shares = [examples(create(kind, train, 4, rank=rank, world_size=3)) for rank in range(3)]
    assert same(whole, shares[0] | shares[1] | shares[2])
    assert [len(share) for share in shares] == [8, 8, 8]


@each_loader
def test_an_epoch_resumes_in_the_middle(kind: type[ImageLoader], train: data.ImageSource) -> None:
    loader = create(kind, train)
    whole = [(images.clone(), labels) for images, labels in loader.epoch(1)]
    for again in (create(kind, train), loader):
        for start in (1, 4):
            rest = list(again.epoch(1, start))
            assert len(rest) == 4 - start
            assert all(
                torch.equal(a[0], b[0]) and torch.equal(a[1], b[1]) for a, b in zip(rest, whole[start:], strict=True)
            )


@each_loader
@pytest.mark.parametrize("workers", [1, 2])
def test_global_generators_are_not_moved(kind: type[ImageLoader], workers: int, train: data.ImageSource) -> None:
    """Dropout draws from torch's generator: resuming starts an epoch again."""
    workers -= kind is TorchvisionLoader  # 0 is this process itself
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    list(create(kind, train, workers=workers).epoch(0))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1].tolist(), random.getstate()) == before[1:]


@each_loader
def test_an_epoch_that_was_left_does_not_disturb_the_next(kind: type[ImageLoader], train: data.ImageSource) -> None:
    loader = create(kind, train)
    fresh = examples(create(kind, train), epoch=1)
    next(iter(loader.epoch(0)))
    assert same(examples(loader, epoch=1), fresh)


@each_loader
def test_epochs_and_seeds_cut_differently(kind: type[ImageLoader], train: data.ImageSource) -> None:
    first = examples(create(kind, train, 24))
    for other in (examples(create(kind, train, 24), epoch=1), examples(create(kind, train, 24, seed=1))):
        assert all(not torch.equal(first[index][0], other[index][0]) for index in first)


@each_loader
def test_evaluation_counts_every_image_once_over_all_processes(kind: type[ImageLoader], odd: data.ImageSource) -> None:
    loaders = [create(kind, odd, 4, train=False, rank=rank, world_size=4) for rank in range(4)]
    counted = [[loader.indices.tolist() for _ in loader.epoch(0)] for loader in loaders]
    assert sorted(index for batches in counted for batch in batches for index in batch) == list(range(21))
    assert [[len(batch) for batch in batches] for batches in counted] == [[4, 1], [4, 1], [4, 1], [4, 2]]


# --- image content ---------------------------------------------------------------------------------------------------


def opened(source: data.ImageSource, index: int) -> Image.Image:
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(source.read(index))))
    if image.mode == "I;16":  # convert() would make white of all above 255
        image = Image.fromarray(np.rint(np.asarray(image) / 257).astype(np.uint8))
    return image.convert("RGB")


@pytest.mark.parametrize("index", range(len(real_world())), ids=real_world())
@each_loader
def test_real_world_files_are_decoded_as_they_should_be(
    kind: type[ImageLoader], index: int, odd: data.ImageSource
) -> None:
    """Compared with Pillow alone: its decoder, orientation, crop and resize."""
    alone = Selection(odd, torch.tensor([index]))
    ((images, _),) = create(kind, alone, 1, train=False).epoch(0)
    image = opened(odd, index)
    top, left, height, width = central_window(
        np.float64(image.height), np.float64(image.width), 0.875, NumPyArithmetic()
    )
    box = (int(left), int(top), int(left + width), int(top + height))
    expected = image.crop(box).resize((SIZE, SIZE), Image.Resampling.BILINEAR)
    difference = (images[0].permute(1, 2, 0).numpy() - np.asarray(expected, np.float32)).__abs__()
    assert difference.mean() < 0.5 and difference.max() <= 3


@each_loader
def test_as_most_networks_are_shown_images(kind: type[ImageLoader], odd: data.ImageSource) -> None:
    """A square crop, bicubic; compared with Pillow alone."""
    preprocessing = Preprocessing(size=SIZE, interpolation="bicubic", keep_aspect=True, central=0.9)
    alone = Selection(odd, torch.tensor([0]))
    ((images, _),) = create(kind, alone, 1, train=False, preprocessing=preprocessing).epoch(0)
    image = opened(odd, 0)
    sides = np.float64(image.height), np.float64(image.width)
    top, left, side, _ = map(int, central_window(*sides, 0.9, NumPyArithmetic(), keep_aspect=True))
    expected = image.crop((left, top, left + side, top + side)).resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    difference = np.abs(images[0].permute(1, 2, 0).numpy() - np.asarray(expected, np.float32))
    assert difference.mean() < 0.5 and difference.max() <= 3


@pytest.mark.parametrize("train", [False, True], ids=["evaluation", "training"])
@each_dali
def test_dali_and_torchvision_agree(kind: type[ImageLoader], train: bool, odd: data.ImageSource) -> None:
    """If DALI resizes: 0.17 grey levels were measured on real photographs; these are smooth ones."""
    dali, torchvision = (examples(create(one, odd, len(odd), train=train)) for one in (kind, TorchvisionLoader))
    assert dali.keys() == torchvision.keys() and len(dali) == len(odd)
    differences = [(dali[index][0] - torchvision[index][0]).abs() for index in dali]
    assert max(float(difference.mean()) for difference in differences) < (0.5 if kind is DaliAsOnAGpu else 0.05)
    assert max(float(difference.max()) for difference in differences) <= (4 if kind is DaliAsOnAGpu else 2)
    assert [dali[index][1] for index in dali] == [torchvision[index][1] for index in dali]


@each_dali
def test_colours_are_the_same_in_both_and_change_the_images(kind: type[ImageLoader], train: data.ImageSource) -> None:
    coloured = Preprocessing(size=SIZE, flip=True, colour=True)
    dali, torchvision = (examples(create(one, train, 24, preprocessing=coloured)) for one in (kind, TorchvisionLoader))
    plain = examples(create(kind, train, 24))
    assert max(float((dali[i][0] - torchvision[i][0]).abs().mean()) for i in dali) < 1
    changes = [float((dali[i][0] - plain[i][0]).abs().mean()) for i in dali]
    assert np.mean(changes) > 10


@pytest.fixture(scope="module")
def coordinates(tmp_path_factory: pytest.TempPathFactory) -> data.ImageSource:
    """PNGs in which red is the row and green the column, of various sizes, including extreme ones."""
    sizes = [(200, 150), (37, 250), (250, 37), (1, 1), (1, 256), (256, 1), (2, 3), (256, 256), (99, 101), (5, 250)] * 4
    contents = []
    for height, width in sizes:
        rows, columns = np.mgrid[:height, :width]
        file = io.BytesIO()
        Image.fromarray(np.stack([rows, columns, 0 * rows], -1).astype(np.uint8)).save(file, "PNG")
        contents.append(file.getvalue())
    folder = tmp_path_factory.mktemp("coordinates")
    for split in ("train", "val"):
        write_folder(folder / split, {"all": contents})
    return data.scan(folder)["train"]


def windows_of_numpy(source: data.ImageSource, preprocessing: Preprocessing, epoch: int) -> Iterator[list[int]]:
    draws = preprocessing.draw(0, epoch, range(len(source)))
    for index in range(len(source)):
        image = opened(source, index)
        height, width = np.float64(image.height), np.float64(image.width)
        window = random_window(
            height, width, list(draws.windows[index]), preprocessing.widest_aspect, NumPyArithmetic()
        )
        yield [int(value) for value in window]


@needs_dali
@pytest.mark.parametrize("options", [{}, {"least_area": 0.9}, {"widest_aspect": 1.0}, {"widest_aspect": 1.3}], ids=str)
def test_dali_computes_the_windows_that_numpy_does(options: dict[str, float], coordinates: data.ImageSource) -> None:
    """Numbers of the graph itself; extreme shapes exercise the fallback.

    In float32, 1.3 times 5 is below 6.5, and the window of 5 x 250 a pixel narrower.
    """
    preprocessing = Preprocessing(**options)
    for epoch in range(3):
        windows = preprocessing.draw(0, epoch, range(len(coordinates))).windows
        found = windows_of_dali(coordinates, preprocessing, [windows])
        assert found == list(windows_of_numpy(coordinates, preprocessing, epoch))


@needs_dali
@pytest.mark.parametrize("central", [0.875, 0.9, 0.7, 1 / 3])
def test_dali_computes_the_central_windows_that_numpy_does(central: float, coordinates: data.ImageSource) -> None:
    """In float32, 1 - 0.9 is above a tenth, so that ten instead of nine of 200 pixels would be cut off."""
    images = [opened(coordinates, index) for index in range(len(coordinates))]
    sides = [(np.float64(image.height), np.float64(image.width)) for image in images]
    for square in (False, True):
        expected = [central_window(*side, central, NumPyArithmetic(), keep_aspect=square) for side in sides]
        assert windows_of_dali(coordinates, Preprocessing(central=central, keep_aspect=square), []) == expected


@needs_dali
@pytest.mark.parametrize(
    "value",
    [
        *(0.0, 0.5, 4 / 3, 0.1, 1 - 0.9, math.pi, 1e-9, 1 + 2**-52, 1 / 3 + 1e5),
        *(1e-30 + 1e-45, 1.1e-38, 1e-40, -1e-60, 5e-324),  # float32 ends at 1e-45
    ],
)
def test_dali_computes_with_every_digit(value: float) -> None:
    """DALI's constants are float32 whatever their type."""
    from nvidia.dali import fn, types
    from nvidia.dali.pipeline import Pipeline

    from fastadv.data.loaders.dali_graph import DaliArithmetic

    pipeline = Pipeline(1, 1, None, prefetch_queue_depth=1)
    with pipeline:
        pipeline.set_outputs(fn.cast(1.0, dtype=types.FLOAT64) * DaliArithmetic().number(value))
    pipeline.build()
    (output,) = pipeline.run()
    assert np.asarray(output.as_tensor()).tolist() == [value]


def windows_of_dali(source: data.ImageSource, preprocessing: Preprocessing, drawn: list[Any]) -> list[list[int]]:
    """Crops of one batch of all images, for training if windows are given."""
    from nvidia.dali import fn
    from nvidia.dali.pipeline import Pipeline

    from fastadv.data.loaders.dali_graph import window_nodes

    count = len(source)
    files = [np.frombuffer(source.read(index), np.uint8) for index in range(count)]
    pipeline = Pipeline(count, 1, None, prefetch_queue_depth=1)
    with pipeline:
        encoded, *nodes = fn.external_source(source=iter([(files, *drawn)]), num_outputs=1 + len(drawn), batch=True)
        pipeline.set_outputs(*window_nodes(encoded, nodes, preprocessing, train=bool(drawn)))
    pipeline.build()
    corners, shapes = (np.asarray(output.as_tensor()) for output in pipeline.run())
    return np.concatenate([corners, shapes], axis=1).tolist()


@each_loader
def test_a_window_is_cut_where_it_should_be(kind: type[ImageLoader], coordinates: data.ImageSource) -> None:
    """Colours are coordinates, so a crop's mean is its centre, up to half a level of rounding."""
    loader = create(kind, coordinates, 40, preprocessing=Preprocessing(size=SIZE, flip=False))
    found = examples(loader)
    for index, window in enumerate(windows_of_numpy(coordinates, loader.preprocessing, 0)):
        top, left, height, width = window
        row, column, _ = found[index][0].mean((1, 2)).tolist()
        assert abs(row - (top + (height - 1) / 2)) < 0.6
        assert abs(column - (left + (width - 1) / 2)) < 0.6


@each_loader
def test_half_of_the_images_are_mirrored(kind: type[ImageLoader], coordinates: data.ImageSource) -> None:
    straight, mirrored = (
        examples(create(kind, coordinates, 40, preprocessing=Preprocessing(size=SIZE, flip=flip)))
        for flip in (False, True)
    )
    wanted = SMALL.draw(0, 0, range(40)).mirrored
    assert 10 < wanted.sum() < 30
    for index, (image, _) in mirrored.items():
        before = straight[index][0]
        assert torch.equal(image, before.flip(-1) if wanted[index] else before)


# --- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"batch_size": 25},
            "the training set has 24 images, fewer than a batch of 25, and incomplete batches are left out",
        ),
        ({"prefetch": 0}, "prefetch must be at least 1, got 0"),
        ({"space": PixelSpace((1.0, 2.0), (1.0, 2.0))}, "the images have 3 channels and the space describes 2"),
    ],
)
@each_loader
def test_refusals(kind: type[ImageLoader], options: dict[str, Any], message: str, train: data.ImageSource) -> None:
    with pytest.raises(ValueError, match=message):
        create(kind, train, **options)


@needs_dali
def test_dali_needs_a_thread(train: data.ImageSource) -> None:
    with pytest.raises(ValueError, match="workers must be at least 1 for DALI, got 0"):
        create(DaliLoader, train, workers=0)


@each_loader
def test_repr_shows_the_settings(kind: type[ImageLoader], train: data.ImageSource) -> None:
    shown = repr(create(kind, train, seed=9))
    assert f"{kind.__name__}(24 images" in shown and "seed=9" in shown and "size=48" in shown


@needs_dali
@pytest.mark.gpu
def test_dali_waits_for_a_stream_that_is_late(train: data.ImageSource) -> None:
    """The pixels are released when the batch is requested, and read long after."""
    loader = create(DaliLoader, train, 4, device="cuda", prefetch=1)
    expected, late = [images.cpu() for images, _ in loader.epoch(0)], []
    batches = loader.epoch(0)
    for _ in expected:
        torch.cuda._sleep(50_000_000)  # clock cycles: tens of milliseconds
        late.append(next(batches)[0])
    assert all(torch.equal(images.cpu(), before) for images, before in zip(late, expected, strict=True))


@needs_dali
@pytest.mark.gpu
def test_the_gpu_shows_what_the_cpu_does(train: data.ImageSource) -> None:
    cpu, gpu = (examples(create(DaliLoader, train, 8, device=device)) for device in ("cpu", "cuda"))
    assert cpu.keys() == gpu.keys()
    for index, (image, label) in gpu.items():
        assert image.is_cuda
        assert label == cpu[index][1]
        assert float((image.cpu() - cpu[index][0]).abs().mean()) < 1.5  # another JPEG decoder
