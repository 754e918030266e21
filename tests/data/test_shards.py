"""WebDataset and TFRecord shards with the images of a folder."""

from __future__ import annotations

import errno
import io
import tarfile
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch

from fastadv import data
from fastadv.data import Preprocessing, TorchvisionLoader
from fastadv.data.sources import shard_index
from fastadv.data.sources.tfrecord import tfrecord_entries
from fastadv.pixels import PixelSpace
from tests.data.loaders import each, needs_dali
from tests.data.pictures import jpeg, write_data_set
from tests.data.tfrecords import example_message, feature, field, record

Example = tuple[str, bytes, int]  # name, image, label


def write_tar(path: Path, examples: list[Example]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, image, label in examples:
            for extension, content in (("jpg", image), ("cls", f"{label}\n".encode()), ("json", b"{}")):
                member = tarfile.TarInfo(f"{name}.{extension}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))


def write_tfrecord(path: Path, examples: list[Example]) -> None:
    path.write_bytes(b"".join(record(example_message(*example)) for example in examples))


WRITERS: dict[str, tuple[str, Callable[[Path, list[Example]], None]]] = {
    "tar": ("{:06}.tar", write_tar),
    "tfrecord": ("part-{}.tfrecord", write_tfrecord),
    "tfrecord of many": ("split-{:05}-of-00002", write_tfrecord),
}
each_kind = pytest.mark.parametrize("kind", WRITERS)


def examples_of(source: data.ImageSource) -> list[Example]:
    return [(f"image{index}", source.read(index), int(source.labels[index])) for index in range(len(source))]


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Store the index of a shard at once; normally that of a shard that was just written is not stored."""
    monkeypatch.setattr(shard_index, "_TICK", -1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_data_set(tmp_path / "folder", per_class=4, classes=3)
    return tmp_path / "folder"


def write_shards(folder: Path, kind: str) -> Path:
    """The images of a folder in the same order, seven of twelve in a first shard."""
    root = folder.with_name("shards")
    pattern, write = WRITERS[kind]
    for split, source in data.scan(folder).items():
        (root / split).mkdir(parents=True)
        examples = examples_of(source)
        for number, part in enumerate((examples[:7], examples[7:])):
            write(root / split / pattern.format(number), part)
    return root


@each_kind
def test_shards_hold_what_the_folder_does(folder: Path, kind: str) -> None:
    root = write_shards(folder, kind)
    for _ in ("indexed", "from the index kept"):
        for split, source in data.scan(root).items():
            assert examples_of(source) == examples_of(data.scan(folder)[split])
            assert source.classes == ("0", "1", "2")
    pattern, _ = WRITERS[kind]
    train = data.scan(root)["train"]
    ending = {"tar": "image0.jpg"}.get(kind, "image0.JPEG")
    assert train.key(0) == f"{pattern.format(0)}/{ending}"
    assert train.name(7) == str(root / "train" / pattern.format(1) / ending.replace("0", "7"))
    assert (root / "train" / (pattern.format(0) + ".fastadv-index.npz")).is_file()


@each_kind
@each("loader")
def test_training_sees_the_same_from_shards(folder: Path, kind: str, loader: type[data.ImageLoader]) -> None:
    batches = []
    for root in (folder, write_shards(folder, kind)):
        source = data.scan(root)["train"]
        options = {"space": PixelSpace.unit(), "train": True, "preprocessing": Preprocessing(size=16), "workers": 1}
        batches.append(list(loader(source, 5, **options).epoch(3)))
    for (one, labels), (other, other_labels) in zip(*batches, strict=True):
        assert torch.equal(one, other) and torch.equal(labels, other_labels)


@needs_dali
def test_dali_reads_these_tfrecords_too(folder: Path) -> None:
    """Another reader reads the same from the records that the tests write."""
    from nvidia.dali import fn, tfrecord
    from nvidia.dali.pipeline import Pipeline

    root = write_shards(folder, "tfrecord")
    shard = root / "train" / "part-0.tfrecord"
    entries = tfrecord_entries(shard).entries
    sizes = [len(record(example_message(*example))) for example in examples_of(data.scan(folder)["train"])[:7]]
    starts = np.cumsum([0, *sizes])
    index = root / "index"
    index.write_text("".join(f"{start} {size}\n" for start, size in zip(starts, sizes, strict=False)))
    pipeline = Pipeline(7, 1, None)
    with pipeline:
        features = {
            "image/encoded": tfrecord.FixedLenFeature((), tfrecord.string, ""),
            "image/class/label": tfrecord.FixedLenFeature([1], tfrecord.int64, -1),
        }
        inputs = fn.readers.tfrecord(path=str(shard), index_path=str(index), features=features)
        pipeline.set_outputs(inputs["image/encoded"], inputs["image/class/label"])
    pipeline.build()
    images, labels = pipeline.run()
    content = shard.read_bytes()
    for row, entry in enumerate(entries):
        assert images.at(row).tobytes() == content[entry.offset : entry.offset + entry.size]
        assert int(labels.at(row)[0]) == entry.label


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("label", [0, 1, 127, 128, 1000, 2**40])
def test_numbers_of_any_length(tmp_path: Path, label: int, packed: bool) -> None:
    file = tmp_path / "one.tfrecord"
    file.write_bytes(record(example_message("a", jpeg(8, 8), label, packed)))
    (entry,) = tfrecord_entries(file).entries
    assert entry.label == label and entry.key == "a.JPEG"


@each_kind
def test_classes_by_name(folder: Path, kind: str) -> None:
    root = write_shards(folder, kind)
    (root / "classes.txt").write_text("cat\ndog\nbird\nfish\n")
    assert data.scan(root)["val"].classes == ("cat", "dog", "bird", "fish")
    (root / "classes.txt").write_text("cat\ndog\n")
    with pytest.raises(ValueError, match=r"must lie in 0\.\.1, one of the 2 classes; got 2 for .*train/"):
        data.scan(root)


@each_kind
def test_validation_images_alone(folder: Path, kind: str) -> None:
    """Without names, classes are numbers up to the largest label, that of the training images if there are any."""
    root = write_shards(folder, kind)
    pattern, write = WRITERS[kind]
    for number in range(2):  # of the third class there is no validation image
        write(root / "val" / pattern.format(number), examples_of(data.scan(folder)["val"])[4 * number : 4 * number + 4])
    assert data.load_test("imagenet", root).classes == ("0", "1", "2")
    (root / "train").rename(root / "elsewhere")
    assert data.load_test("imagenet", root).classes == ("0", "1")
    (root / "classes.txt").write_text("cat\ndog\nbird\n")
    assert data.load_test("imagenet", root).classes == ("cat", "dog", "bird")
    with pytest.raises(ValueError, match=r"val/ holds shards \(.*\) and train/ does not: both must"):
        data.load("imagenet", root)


@each_kind
@pytest.mark.parametrize(
    ("train", "val", "said"),
    [
        ((0, 1, 2), (0, 1, 2), None),
        ((1, 3), (1, 3), None),  # 0 as the background in TFRecords of ImageNet
        ((0, 1, 2), (0, 2), "val/ lacks 1"),
        ((0, 1, 2), (1, 2, 3), "train/ lacks 3; val/ lacks 0"),  # counted from 1
        (tuple(range(9)), (0,), "val/ lacks 1, 2, 3, 4, 5 and 3 more"),
    ],
)
def test_classes_of_only_one_split_warn(
    kind: str, train: tuple[int, ...], val: tuple[int, ...], said: str | None, tmp_path: Path
) -> None:
    pattern, write = WRITERS[kind]
    (tmp_path / "classes.txt").write_text("".join(f"{number}\n" for number in range(10)))
    for split, labels in (("train", train), ("val", val)):
        (tmp_path / split).mkdir()
        write(tmp_path / split / pattern.format(0), [(f"a{label}", b"image", label) for label in labels])
    with nullcontext() if said is None else pytest.warns(UserWarning, match=f"show different classes: {said}. Shards"):
        data.scan(tmp_path)
    data.scan(tmp_path, ("val",))


@each_kind
def test_a_shard_that_changes_is_indexed_again(folder: Path, kind: str) -> None:
    root = write_shards(folder, kind)
    data.scan(root)
    pattern, write = WRITERS[kind]
    write(root / "train" / pattern.format(0), examples_of(data.scan(folder)["train"])[:2])
    assert len(data.scan(root)["train"]) == 7


@each_kind
def test_an_index_that_is_damaged_is_made_again(folder: Path, kind: str) -> None:
    root = write_shards(folder, kind)
    before = examples_of(data.scan(root)["train"])
    for index in (root / "train").glob("*.npz"):
        index.write_bytes(index.read_bytes()[:50])
    assert examples_of(data.scan(root)["train"]) == before


def test_an_index_that_cannot_be_stored_warns(folder: Path) -> None:
    root = write_shards(folder, "tar")
    for number in range(2):
        (root / "train" / f"{number:06}.tar.fastadv-index.npz").mkdir()
    with pytest.warns(UserWarning) as said:
        assert len(data.scan(root)["train"]) == 12
    assert [str(one.message) for one in said] == [
        f"{root}/train: the index of 000000.tar, 000001.tar cannot be stored and is made again at the next start (Is a "
        f"directory)"
    ]
    assert len(list((root / "train").iterdir())) == 4  # and nothing is left of the trial


def test_shards_on_a_read_only_file_system(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    root = write_shards(folder, "tar")
    monkeypatch.setattr(np, "savez", refuse)
    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.warns(UserWarning, match=r"made again at the next start \(Read-only file system\)"):
        assert len(data.scan(root)["train"]) == 12


def test_two_processes_of_one_number_may_index_at_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two containers share storage: when one renames its temporary file, the other must not fail."""
    root = write_shards(folder, "tar")
    (root / "train" / "000001.tar").unlink()
    replace, written = Path.replace, []

    def after_another(path: Path, target: Path) -> Path:
        written.append(path.name)
        if len(written) == 1:
            data.scan(root, ("train",))
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", after_another)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(data.scan(root, ("train",))["train"]) == 7
    assert len(written) == len(set(written)) == 2


@pytest.mark.parametrize(
    ("kind", "content", "message"),
    [
        ("tar", b"not a tar file" * 100, r"000000\.tar is not a complete, uncompressed tar shard"),
        ("tar", b"", r"000000\.tar"),
        (
            "tfrecord",
            b"not a record" * 100,
            "part-0.tfrecord is not a complete, uncompressed TFRecord file of images: the record at byte 0",
        ),
        ("tfrecord", b"", "part-0.tfrecord holds no images"),
        (
            "tfrecord",
            record(field(1, feature("a", b"b"))),
            "part-0.tfrecord, example 0: no image/encoded and no image/class/label",
        ),
        ("tfrecord", record(field(1, feature("image/encoded", b"b"))), "example 0: no image/class/label"),
        ("tfrecord", record(b"\xff\xff\xff"), "example 0: a number extends beyond its message"),
        ("tfrecord", record(b"\x08\x01"), "field 1 of a message must not be a number"),
        ("tfrecord", record(field(1, b"ab")[:-1]), "extends beyond its message"),
        ("tfrecord", record(example_message("a", b"image", 0))[:-5], "the record at byte 0 extends beyond the end"),
    ],
)
def test_damaged_shards_are_named(folder: Path, kind: str, content: bytes, message: str) -> None:
    root = write_shards(folder, kind)
    pattern, _ = WRITERS[kind]
    (root / "train" / pattern.format(0)).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        data.scan(root)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "folder/lonely.jpg",
            b"abc",
            r"no \.cls file with the class of folder/lonely\. If it is the archive of one class",
        ),
        ("other.cls", b"cat", r"000000\.tar: 'other\.cls' must hold the number of a class, from 0, got b'cat'"),
    ],
)
def test_an_image_without_a_class_is_named(folder: Path, name: str, content: bytes, message: str) -> None:
    root = write_shards(folder, "tar")
    with tarfile.open(root / "train" / "000000.tar", "a") as tar:
        member = tarfile.TarInfo(name)
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
    with pytest.raises(ValueError, match=message):
        data.scan(root)


@pytest.mark.parametrize("name", ["image0.png", "image0.jpg"])
def test_a_second_image_of_an_example_is_named(folder: Path, name: str) -> None:
    root = write_shards(folder, "tar")
    with tarfile.open(root / "train" / "000000.tar", "a") as tar:
        tar.addfile(tarfile.TarInfo(name), io.BytesIO())
    with pytest.raises(ValueError, match=rf"an example has one image and one \.cls file, but {name} is a second"):
        data.scan(root)


def test_a_bad_image_in_a_shard_is_named_by_its_place(folder: Path) -> None:
    root = write_shards(folder, "tar")
    examples = examples_of(data.scan(folder)["train"])
    examples[3] = ("image3", b"not an image", 0)
    write_tar(root / "train" / "000000.tar", examples[:7])
    loader = TorchvisionLoader(data.scan(root)["train"], 12, space=PixelSpace.raw(), train=True, workers=0)
    with pytest.warns(data.BadImageWarning, match=r"train/000000\.tar/image3\.jpg cannot be used"):
        next(iter(loader.epoch(0)))


def test_a_shard_that_was_cut_off_after_it_was_indexed(folder: Path) -> None:
    root = write_shards(folder, "tar")
    source = data.scan(root)["train"]
    shard = root / "train" / "000000.tar"
    shard.write_bytes(shard.read_bytes()[:2000])
    with pytest.raises(OSError, match="the shard has changed since its images were listed"):
        source.read(6)
