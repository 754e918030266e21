"""Images per second of the loaders, on the same JPEGs with as many threads or processes: DALI, torchvision, Pillow.

The images are made here, of ImageNet's usual size; FASTADV_BENCH_IMAGES names a folder with real ones (``CLASS/IMAGE``)
instead. Each round reads them all by each loader, from the files to batches in memory, starting workers included. The
target is twice torchvision's rate. Baselines: TorchvisionLoader, which ends in the same operator as DaliLoader, and
torchvision's ImageFolder and transforms under PyTorch's DataLoader, as its reference training has them. Ceiling:
decoding alone, by Pillow, in as many threads, which is no bound for DALI: it decodes no more than the window. ffcv
1.0.2 is no baseline: pip could not install it (2026-11-24), without OpenCV's and libturbojpeg's headers in the system.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision import datasets
from torchvision.transforms import v2

from benchmarks.harness import TABLES, Interleaved, Table
from fastadv import PixelSpace
from fastadv.data import DaliLoader, ImageSource, Preprocessing, TorchvisionLoader
from fastadv.data.sources.folder import scan_class_folders
from fastadv.data.transforms.decode import decode, open_image

WORKERS = len(os.sched_getaffinity(0))
BATCH, SIZE, COUNT, ROUNDS = 32, 299, 1536, 5
SPACE = PixelSpace.imagenet()
PREPROCESSING = Preprocessing(size=SIZE, flip=True)
BASELINES = ("TorchvisionLoader", "ImageFolder and transforms")
LOADERS = Table(
    f"Loading for training: batches of {BATCH} x 3 x {SIZE} x {SIZE} float32, {WORKERS} threads or processes",
    [
        "images",
        "loader",
        "images/s (quartiles)",
        *(f"times {name} (quartiles)" for name in BASELINES),
        "mean of a pixel's difference in training",
        "in evaluation",
    ],
    notes=["Crops of 5 to 100 % of the area, mirrored, normalised. Differences in grey levels, on the same windows."],
)
TABLES.append(LOADERS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders of JPEGs."""
    given = os.environ.get("FASTADV_BENCH_IMAGES")
    if given:
        return Path(given)
    root = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    (root / "class").mkdir()
    for number in range(COUNT):
        (root / "class" / f"{number:04}.JPEG").write_bytes(photograph(rng))
    return root


def photograph(rng: np.random.Generator) -> bytes:
    """500 x 375 pixels of smooth shapes with some noise, about 100 kB like ImageNet's files."""
    coarse = Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((500, 375), Image.Resampling.BICUBIC), np.float32)  # [375, 500, 3]
    grainy = smooth + rng.normal(0, 10, (375, 500, 1))
    file = io.BytesIO()
    Image.fromarray(grainy.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=90)
    return file.getvalue()


def opened(path: str) -> Image.Image:
    """Decode like torchvision's ImageFolder, but restricted to the list of formats."""
    with open_image(Path(path).read_bytes()) as image:
        return image.convert("RGB")


def read_all(batches: Iterable[object]) -> None:
    for _ in batches:
        pass


def variants(source: ImageSource, folder: Path) -> dict[str, Callable[[], object]]:
    options = {"space": SPACE, "train": True, "preprocessing": PREPROCESSING, "workers": WORKERS}
    own = {kind.__name__: kind(source, BATCH, **options) for kind in (DaliLoader, TorchvisionLoader)}
    transform = v2.Compose(
        [
            v2.RandomResizedCrop(SIZE, scale=(0.05, 1.0), antialias=True),
            v2.RandomHorizontalFlip(),
            v2.PILToTensor(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ]
    )
    reference = DataLoader(
        datasets.ImageFolder(folder, transform, loader=opened), BATCH, shuffle=True, drop_last=True, num_workers=WORKERS
    )

    def decoding_alone() -> None:
        with ThreadPoolExecutor(WORKERS) as pool:
            read_all(pool.map(lambda index: decode(source.read(index)), range(len(source) // BATCH * BATCH)))

    return {
        **{name: (lambda loader=loader: read_all(loader.epoch(0))) for name, loader in own.items()},
        "ImageFolder and transforms": lambda: read_all(reference),
        "decoding alone, Pillow": decoding_alone,
    }


def difference(source: ImageSource, *, train: bool) -> float:
    """Mean difference between the two loaders on the first images, in grey levels."""
    options = {"space": PixelSpace.raw(), "train": train, "preprocessing": PREPROCESSING}
    ours, theirs = (kind(source, BATCH, **options) for kind in (DaliLoader, TorchvisionLoader))
    return float((next(iter(ours.epoch(0)))[0] - next(iter(theirs.epoch(0)))[0]).abs().mean())


def test_loading(benchmark, folder: Path) -> None:
    source = scan_class_folders(folder)
    interleaved = Interleaved(variants(source, folder), quantum=0)
    benchmark.group = "loaders"
    benchmark.pedantic(interleaved.round, rounds=ROUNDS)
    timings, images = interleaved.timings(), len(source) // BATCH * BATCH
    where = "given" if "FASTADV_BENCH_IMAGES" in os.environ else "made"
    for name, timing in timings.items():
        rate, slow, fast = (images / seconds for seconds in (timing.median, timing.high, timing.low))
        ratios = {baseline: interleaved.ratio(baseline, name) for baseline in BASELINES}
        benchmark.extra_info[name] = {"images/s": rate, **{baseline: r.median for baseline, r in ratios.items()}}
        apart = [f"{difference(source, train=train):.2f}" if name == "DaliLoader" else "" for train in (True, False)]
        shown = [f"{rate:.0f} ({slow:.0f}-{fast:.0f})", *(ratio.text for ratio in ratios.values()), *apart]
        LOADERS.rows.append([f"{len(source)} {where}", name, *shown])
