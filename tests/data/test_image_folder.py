"""Folders of images: their content, and errors before the first step."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from torchvision.datasets import ImageFolder as TorchvisionImageFolder

from fastadv import data
from fastadv.data.sources.base import fingerprint_of_files, spread
from tests.data.pictures import jpeg, write_data_set, write_folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_data_set(tmp_path, per_class=3, classes=2)
    return tmp_path


def test_the_images_in_the_order_of_torchvision(root: Path) -> None:
    (root / "train" / "class0" / "below").mkdir()
    (root / "train" / "class0" / "below" / "it's.PNG").write_bytes(jpeg(8, 8))
    (root / "train" / "class1" / "notes.txt").write_text("not an image")
    (root / "train" / "class1" / ".hidden.jpg").write_text("nor this")
    (root / "train" / "a file.jpg").write_text("nor this")
    train = data.scan(root)["train"]
    reference = [
        (path, label) for path, label in TorchvisionImageFolder(root / "train").samples if ".hidden" not in path
    ]
    assert [(train.name(i), int(train.labels[i])) for i in range(len(train))] == reference
    assert train.classes == ("class0", "class1")
    assert train.key(3) == "class0/below/it's.PNG"
    assert train.read(0) == (root / "train" / "class0" / "000.JPEG").read_bytes()


def test_a_folder_of_links_and_of_names_that_are_not_unicode(root: Path, tmp_path: Path) -> None:
    (root / "train" / "class0" / "000.JPEG").rename(root / "elsewhere")
    (root / "train" / "class0" / "000.JPEG").symlink_to(root / "elsewhere")
    odd = bytes(root / "train" / "class1") + b"/\xff.jpg"
    Path(odd.decode("utf-8", "surrogateescape")).write_bytes(jpeg(8, 8))
    train = data.scan(root)["train"]
    assert len(train) == 7
    assert all(train.read(index).startswith(b"\xff\xd8") for index in range(7))
    assert len(fingerprint_of_files(train)) == 64


def test_class_folders_that_are_named_as_shards_are(root: Path) -> None:
    names = ("ace.tar", "jack-of-spades1", "king.tfrecord")
    for split in ("train", "val"):
        write_folder(root / split, {name: [jpeg(8, 8)] for name in names})
    assert data.scan(root)["val"].classes == ("ace.tar", "class0", "class1", "jack-of-spades1", "king.tfrecord")


def no_train(root: Path) -> None:
    (root / "train").rename(root / "training")


def neither(root: Path) -> None:
    for split in ("train", "val"):
        (root / split).rename(root / f"{split}-")


def an_empty_class(root: Path) -> None:
    (root / "train" / "a").mkdir()
    (root / "train" / "a" / "notes.txt").touch()


def other_classes(root: Path) -> None:
    write_folder(root / "train", {"b": [jpeg(8, 8)]})
    write_folder(root / "val", {"c": [jpeg(8, 8)], "d": [jpeg(8, 8)]})


def no_classes(root: Path) -> None:
    for folder in (root / "val").iterdir():
        folder.rename(root / folder.name)


def flat(root: Path) -> None:
    """As ImageNet's validation images are distributed."""
    shutil.rmtree(root / "val")
    (root / "val").mkdir()
    for number in range(4):
        (root / "val" / f"{number}.JPEG").touch()
    (root / "val" / "$RECYCLE.BIN").mkdir()


def shards_on_one_side(root: Path) -> None:
    (root / "val" / "000.tar").touch()


@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        (no_train, FileNotFoundError, r"has no train/: it must hold train/CLASS/IMAGE and val/CLASS/IMAGE, or shards"),
        (neither, FileNotFoundError, r"has no train/ and no val/"),
        (
            an_empty_class,
            ValueError,
            r"train: no images \(\*\.jpeg.*\) in the class folders a: put images there, or delete",
        ),
        (
            other_classes,
            ValueError,
            r"the same class folders, unless classes\.txt beside them names all .*; train/ lacks c, d; val/ lacks b$",
        ),
        (no_classes, ValueError, r"val has no class folders: it must hold CLASS/IMAGE, or shards named .*; it is"),
        (flat, ValueError, r"val has no class folders: .*; there are 0\.JPEG, 1\.JPEG, 2\.JPEG and 1 more$"),
        (shards_on_one_side, ValueError, r"val/ holds shards \(\*\.tar\) and train/ does not: both must"),
    ],
)
def test_errors_name_the_problem(
    root: Path, spoil: Callable[[Path], None], error: type[Exception], message: str
) -> None:
    spoil(root)
    with pytest.raises(error, match=message):
        data.load("imagenet", root)


@pytest.mark.parametrize(
    ("named", "labels"),
    [
        ("class0\nclass1\nclass2\n", [1, 1, 1]),
        ("class1\nclass0", [0, 0, 0]),
        ("absent\r\nclass0\r\nclass1\r\n\r\n", [2, 2, 2]),
        (None, [0, 0, 0]),
    ],
)
def test_classes_by_name(root: Path, named: str | None, labels: list[int]) -> None:
    """Classes keep their numbers if validation images are of some classes only."""
    shutil.rmtree(root / "val" / "class0")
    if named is not None:
        (root / "classes.txt").write_bytes(named.encode())
    val = data.load_test("imagenet", root)
    assert val.labels.tolist() == labels
    assert val.classes == (tuple(named.split()) if named else ("class1",))
    if named:
        with pytest.warns(UserWarning, match=r"different classes: val/ lacks class0\. Class folders may be missing$"):
            train = data.load("imagenet", root).train
        assert {train.key(i).partition("/")[0]: train.classes[train.labels[i]] for i in range(len(train))} == {
            "class0": "class0",
            "class1": "class1",
        }


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ("class1\ncat\n", r"val: the class folders class0 are not among the 2 classes that .*/classes\.txt names: it"),
        ("class0\nclass1\nclass0\n", r"classes\.txt names class0 twice: a folder can be only one class"),
    ],
)
def test_classes_by_name_that_do_not_fit(root: Path, named: str, message: str) -> None:
    (root / "classes.txt").write_text(named)
    with pytest.raises(ValueError, match=message):
        data.load_test("imagenet", root)


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match="absent is not a folder: expected one that holds train/CLASS/IMAGE and"
    ):
        data.load("imagenet", tmp_path / "absent")
    with pytest.raises(
        ValueError, match=r"read from a folder. Pass it with --data DIR \(root\); it must hold train"
    ) as no:
        data.load("imagenet")
    assert "download" not in str(no.value)


def test_nothing_is_downloaded(root: Path) -> None:
    with pytest.raises(ValueError, match="imagenet cannot be downloaded"):
        data.load("imagenet", root, download=True)


@pytest.mark.parametrize(
    ("count", "keys"), [(2, [0, 3]), (3, [0, 2, 4]), (5, [0, 1, 2, 3, 4]), (6, None), (None, None)]
)
def test_spread_takes_from_every_class(root: Path, count: int | None, keys: list[int] | None) -> None:
    train = data.scan(root)["train"]  # two classes of three images
    some = spread(train, count)
    wanted = list(range(6)) if keys is None else keys
    assert [some.key(i) for i in range(len(some))] == [train.key(i) for i in wanted]
    assert some.labels.tolist() == train.labels[wanted].tolist()
    assert some.read(1) == train.read(wanted[1]) and some.name(1) == train.name(wanted[1])
    assert some.stamp(1) == train.stamp(wanted[1]) and some.classes == train.classes


def test_the_fingerprint_is_of_names_sizes_and_labels(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("copy")
    write_data_set(elsewhere, per_class=3, classes=2)
    first = fingerprint_of_files(data.scan(root)["val"])
    assert first == fingerprint_of_files(data.scan(elsewhere)["val"])
    image = elsewhere / "val" / "class0" / "000.JPEG"
    image.write_bytes(image.read_bytes() + b"1")
    assert first != fingerprint_of_files(data.scan(elsewhere)["val"])
    image.write_bytes(image.read_bytes()[:-1])
    image.rename(image.with_name("renamed.JPEG"))
    assert first != fingerprint_of_files(data.scan(elsewhere)["val"])
