"""Data sets: the bundled digits, and small files in the real formats."""

from __future__ import annotations

import gzip
import hashlib
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torchvision import datasets

from fastadv import data
from fastadv.data import ImageSet

IDX_FILES = ["train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"]
TRAIN, TEST = 12, 5  # examples
CIFAR_BATCHES = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]


# --- files ----------------------------------------------------------------------------------------------------------


def idx_bytes(array: np.ndarray) -> bytes:
    """The IDX format: two zero bytes, the type (8: unsigned byte), the rank, big-endian sizes, the values."""
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.astype(np.uint8).tobytes()


def mnist_arrays() -> list[np.ndarray]:
    """Contents in the order of IDX_FILES; pixel (row, column) of image n is n + 10 * row + column."""
    grid = 10 * np.arange(4)[:, None] + np.arange(3)  # [H, W]
    images = [np.arange(count)[:, None, None] + grid for count in (TRAIN, TEST)]  # [N, H, W]
    labels = [np.arange(count) % 10 for count in (TRAIN, TEST)]  # [N]
    return [images[0], labels[0], images[1], labels[1]]


def write_mnist(folder: Path, packed: bool) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for file, array in zip(IDX_FILES, mnist_arrays(), strict=True):
        content = idx_bytes(array)
        if packed:
            (folder / f"{file}.gz").write_bytes(gzip.compress(content))
        else:
            (folder / file).write_bytes(content)


def cifar_batch(seed: int) -> dict[str, object]:
    pixels = np.random.default_rng(seed).integers(0, 256, (2, 3 * 32 * 32), dtype=np.uint8)  # [N, C * H * W]
    return {"data": pixels, "labels": [seed, 9 - seed]}


@pytest.fixture
def cifar_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """CIFAR-10 with two images per batch; torchvision's checksums are replaced by those of these files."""
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    contents: dict[str, object] = {batch: cifar_batch(seed) for seed, batch in enumerate(CIFAR_BATCHES)}
    contents["batches.meta"] = {"label_names": [f"class {i}" for i in range(10)]}
    checksums = []
    for file, content in contents.items():
        pickled = pickle.dumps(content)
        (folder / file).write_bytes(pickled)
        checksums.append([file, hashlib.md5(pickled).hexdigest()])
    monkeypatch.setattr(datasets.CIFAR10, "train_list", checksums[:5])
    monkeypatch.setattr(datasets.CIFAR10, "test_list", checksums[5:6])
    monkeypatch.setattr(datasets.CIFAR10, "meta", {**datasets.CIFAR10.meta, "md5": checksums[6][1]})
    return tmp_path


# --- ImageSet -------------------------------------------------------------------------------------------------------

IMAGES = torch.zeros(2, 1, 4, 4, dtype=torch.uint8)
LABELS = torch.tensor([0, 1])


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (IMAGES.float(), LABELS, r"images must be uint8 \[N, C, H, W\], got torch.float32"),
        (IMAGES[0], LABELS, r"images must be uint8 \[N, C, H, W\], got torch.uint8 \[1, 4, 4\]"),
        (IMAGES, LABELS.int(), r"labels must be int64 \[2\].*got torch.int32"),
        (IMAGES, LABELS[:1], r"labels must be int64 \[2\].*got torch.int64 \[1\]"),
        (IMAGES, torch.tensor([0, 2]), r"labels must lie in 0..1.*got 0..2"),
        (IMAGES, torch.tensor([-1, 0]), r"labels must lie in 0..1.*got -1..0"),
    ],
)
def test_image_set_refuses(images: torch.Tensor, labels: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ImageSet(images, labels, ("cat", "dog"))


@pytest.mark.parametrize("count", [0, 2])
def test_image_set(count: int) -> None:
    image_set = ImageSet(IMAGES[:count], LABELS[:count], ("cat", "dog"))
    assert len(image_set) == count
    assert repr(image_set) == f"ImageSet({count} images [1, 4, 4], 2 classes)"


# --- digits ---------------------------------------------------------------------------------------------------------


def test_digits() -> None:
    digits = data.load("digits")
    assert (len(digits.train), len(digits.test)) == (1297, 500)
    for part in (digits.train, digits.test):
        assert part.images.shape[1:] == (1, 8, 8)
        assert part.classes == tuple("0123456789")
        # 0..16 scaled to 0..255: ties round to even.
        assert part.images.unique().tolist() == [
            *(0, 16, 32, 48, 64, 80, 96, 112, 128, 143, 159, 175, 191, 207, 223, 239, 255),
        ]
    counts = torch.bincount(digits.test.labels)
    assert counts.min() >= 48 and counts.max() <= 51  # stratified: the whole set has 174 to 183 of each


def test_digits_split_is_fixed_and_covers_all() -> None:
    from sklearn.datasets import load_digits

    digits, again = data.load("digits"), data.load("digits")
    assert torch.equal(digits.test.images, again.test.images)
    # The split is fixed, so that results of different versions stay comparable.
    assert digits.test.labels[:12].tolist() == [4, 8, 8, 3, 9, 0, 6, 3, 9, 8, 4, 5]
    together = torch.cat([digits.train.images, digits.test.images]).flatten(1)  # [N, 64]
    whole = torch.from_numpy(np.rint(load_digits().data * 255 / 16)).to(torch.uint8)  # [N, 64]
    assert sorted(together.tolist()) == sorted(whole.tolist())


# --- MNIST, Fashion-MNIST -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gz"])
@pytest.mark.parametrize(
    ("name", "layout", "first_class"),
    [
        ("mnist", "MNIST/raw", "0 - zero"),
        ("mnist", ".", "0 - zero"),
        ("fashion_mnist", "FashionMNIST/raw", "T-shirt/top"),
        ("fashion_mnist", ".", "T-shirt/top"),
    ],
)
def test_mnist_files(tmp_path: Path, name: str, layout: str, first_class: str, packed: bool) -> None:
    write_mnist(tmp_path / layout, packed)
    loaded = data.load(name, tmp_path)
    assert loaded.train.images.shape == (TRAIN, 1, 4, 3) and loaded.test.images.shape == (TEST, 1, 4, 3)
    assert loaded.train.images[7, 0, 2, 1] == 28
    assert loaded.train.labels.tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]
    assert loaded.test.labels.tolist() == [0, 1, 2, 3, 4]
    assert loaded.train.classes == loaded.test.classes and loaded.train.classes[0] == first_class


def test_mnist_layout_of_torchvision_comes_first(tmp_path: Path) -> None:
    write_mnist(tmp_path / "MNIST" / "raw", packed=False)
    write_mnist(tmp_path, packed=False)
    (tmp_path / IDX_FILES[0]).write_bytes(b"")
    assert len(data.load("mnist", str(tmp_path)).train) == TRAIN


IMAGE_BYTES, LABEL_BYTES = map(idx_bytes, mnist_arrays()[:2])
IMAGES_GZ = gzip.compress(IMAGE_BYTES, mtime=0)  # the same in each process: it is part of a test's name


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("train-images-idx3-ubyte", b""),
        ("train-images-idx3-ubyte", IMAGE_BYTES[:16]),
        ("train-images-idx3-ubyte", IMAGE_BYTES[:-1]),
        ("train-images-idx3-ubyte", LABEL_BYTES),
        ("train-images-idx3-ubyte", b"<html>404 Not Found</html>"),
        ("t10k-labels-idx1-ubyte", bytes([0, 0, 13, 1]) + LABEL_BYTES[4:]),  # float32
        ("t10k-labels-idx1-ubyte", bytes([0, 0, 10, 1]) + LABEL_BYTES[4:]),  # no such type
        ("train-images-idx3-ubyte.gz", IMAGES_GZ[:-9]),
        ("train-images-idx3-ubyte.gz", IMAGES_GZ[:-8] + bytes(8)),
        ("train-images-idx3-ubyte.gz", IMAGES_GZ[:10] + b"\xff" * 40),
        ("t10k-labels-idx1-ubyte.gz", LABEL_BYTES),
        ("t10k-labels-idx1-ubyte.gz", gzip.compress(b"", mtime=0)),
    ],
)
def test_damaged_idx_file_is_named(tmp_path: Path, file: str, content: bytes) -> None:
    write_mnist(tmp_path, packed=file.endswith(".gz"))
    (tmp_path / file).write_bytes(content)
    with pytest.raises(ValueError, match="is damaged") as caught:
        data.load("mnist", tmp_path)
    assert str(tmp_path / file) in str(caught.value)


def test_idx_files_that_do_not_fit_together_are_named(tmp_path: Path) -> None:
    write_mnist(tmp_path, packed=False)
    (tmp_path / IDX_FILES[1]).write_bytes(idx_bytes(np.arange(3)))
    with pytest.raises(ValueError, match=r"labels must be int64 \[12\].*got torch.int64 \[3\]") as caught:
        data.load("mnist", tmp_path)
    assert all(str(tmp_path / file) in str(caught.value) for file in IDX_FILES[:2])


def test_published_archive_of_a_namesake_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_mnist(tmp_path, packed=True)
    archive = "t10k-labels-idx1-ubyte.gz"
    md5 = hashlib.md5((tmp_path / archive).read_bytes()).hexdigest()
    monkeypatch.setattr(datasets.FashionMNIST, "resources", [(archive, md5)])
    with pytest.raises(ValueError, match=rf"{archive} is a file of FashionMNIST, not of mnist"):
        data.load("mnist", tmp_path)
    assert len(data.load("fashion_mnist", tmp_path).train) == TRAIN


# --- CIFAR-10 -------------------------------------------------------------------------------------------------------


def test_cifar10_files(cifar_root: Path) -> None:
    loaded = data.load("cifar10", cifar_root)
    assert loaded.train.images.shape == (10, 3, 32, 32) and loaded.test.images.shape == (2, 3, 32, 32)
    assert loaded.train.labels.tolist() == [0, 9, 1, 8, 2, 7, 3, 6, 4, 5] and loaded.test.labels.tolist() == [5, 4]
    for images, seed in ((loaded.train.images[2:4], 1), (loaded.test.images, 5)):
        assert np.array_equal(images.flatten(1).numpy(), cifar_batch(seed)["data"])
    assert loaded.train.images.is_contiguous()
    assert loaded.test.classes == tuple(f"class {i}" for i in range(10))


@pytest.mark.parametrize("file", ["data_batch_3", "test_batch", "batches.meta"])
def test_damaged_cifar_file_is_named(cifar_root: Path, file: str) -> None:
    path = cifar_root / "cifar-10-batches-py" / file
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"is damaged.*--download") as caught:
        data.load("cifar10", cifar_root)
    assert str(path) in str(caught.value)


# --- missing files, downloads, names --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "present", "absent"),
    [
        ("mnist", [], [*IDX_FILES, "MNIST/raw"]),
        ("fashion_mnist", IDX_FILES[1:], [IDX_FILES[0], "FashionMNIST/raw"]),
        ("cifar10", [], [*CIFAR_BATCHES, "batches.meta", "cifar-10-batches-py"]),
        ("cifar10", [f"cifar-10-batches-py/{file}" for file in CIFAR_BATCHES], ["batches.meta"]),
    ],
)
def test_missing_files_and_both_remedies_are_named(
    tmp_path: Path, name: str, present: list[str], absent: list[str]
) -> None:
    for file in present:
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).touch()
    with pytest.raises(FileNotFoundError) as caught:
        data.load(name, tmp_path)
    message = str(caught.value)
    assert all(part in message for part in [str(tmp_path), "--data DIR", "--download", *absent])


def test_only_the_missing_file_is_named(tmp_path: Path) -> None:
    write_mnist(tmp_path, packed=False)
    (tmp_path / IDX_FILES[2]).unlink()
    with pytest.raises(FileNotFoundError) as caught:
        data.load("mnist", tmp_path)
    raw = tmp_path / "MNIST" / "raw"
    assert f"Looked in: {raw} (no such folder); {tmp_path} (lacks {IDX_FILES[2]}[.gz])." in str(caught.value)


def test_a_folder_without_class_folders_is_refused(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").touch()
    with pytest.raises(FileNotFoundError, match=re.escape(f"{tmp_path} (none of them)")):
        data.load("mnist", tmp_path)


@pytest.mark.parametrize("unused", [{"root": "somewhere"}, {"download": True}])
def test_digits_use_no_folder_and_say_so(unused: dict[str, Any]) -> None:
    with pytest.warns(UserWarning, match=r"digits is part of scikit-learn: root \(--data\) and download are not used"):
        assert len(data.load("digits", **unused).test) == 500


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "cifar10"])
def test_no_folder(name: str) -> None:
    with pytest.raises(ValueError, match=rf"{name} is read from a folder.*--data DIR.*--download"):
        data.load(name)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("svhn", ""),
        ("imagenette", " (did you mean imagenet?)"),
        ("FashionMNIST", " (did you mean fashion_mnist?)"),
        ("cifar-100", " (did you mean cifar10?)"),
    ],
)
def test_unknown_name(name: str, hint: str) -> None:
    assert data.names() == ["digits", "mnist", "fashion_mnist", "cifar10", "imagenet"]
    accepted = "digits, mnist, fashion_mnist, cifar10, imagenet. imagenet with --data DIR (root) is any set of image"
    with pytest.raises(ValueError, match=re.escape(f"unknown data set '{name}'{hint}; accepted: {accepted}")):
        data.load(name, "anywhere")


def test_the_test_images_alone() -> None:
    both, test = data.load("digits"), data.load_test("digits")
    assert torch.equal(test.images, both.test.images) and test.classes == both.test.classes
    with pytest.raises(ValueError, match="imagenet is read from a folder"):
        data.load_test("imagenet")


def test_download_only_when_asked_and_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    downloads: list[str] = []

    def download(dataset: datasets.MNIST) -> None:
        downloads.append(type(dataset).__name__)
        write_mnist(Path(dataset.raw_folder), packed=False)

    monkeypatch.setattr(datasets.MNIST, "download", download)
    with pytest.raises(FileNotFoundError):
        data.load("fashion_mnist", tmp_path)
    assert downloads == []
    for _ in range(2):
        assert len(data.load("fashion_mnist", tmp_path, download=True).train) == TRAIN
    assert downloads == ["FashionMNIST"]


@pytest.mark.parametrize(("name", "class_name"), [("mnist", "MNIST"), ("cifar10", "CIFAR10")])
@pytest.mark.parametrize("failure", [RuntimeError("File not found or corrupted."), ConnectionError("no route")])
def test_failed_download(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, class_name: str, failure: Exception
) -> None:
    def download(dataset: object) -> None:
        raise failure

    monkeypatch.setattr(getattr(datasets, class_name), "download", download)
    with pytest.raises(OSError, match=f"{name} could not be downloaded into .*{failure}"):
        data.load(name, tmp_path, download=True)
