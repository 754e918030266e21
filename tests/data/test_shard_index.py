"""The index beside a shard never contradicts the shard; labels are bounded before classes are created from them."""

from __future__ import annotations

import io
import os
import shutil
import time
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fastadv import data
from fastadv.cli import main
from fastadv.data.sources import shard_index, shards
from fastadv.data.sources.shard_index import ShardIndex
from fastadv.data.sources.tar import tar_entries
from tests.data.pictures import write_data_set
from tests.data.test_shards import WRITERS, each_kind, write_tar, write_tfrecord

EXAMPLES = [("a", b"image of a", 1), ("b", b"image of b", 0)]
TAR = WRITERS["tar"][0].format(0)
INDEX = TAR + shard_index.SUFFIX


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two images in a tar file with an index."""
    monkeypatch.setattr(shard_index, "_TICK", -1)
    for split in ("train", "val"):
        (tmp_path / split).mkdir()
        write_tar(tmp_path / split / TAR, EXAMPLES)
    data.scan(tmp_path)
    return tmp_path


def labels(root: Path) -> list[int]:
    source = data.scan(root)["train"]
    assert [source.read(index) for index in range(len(source))] == [image for _, image, _ in EXAMPLES]
    return source.labels.tolist()


def index_of(root: Path) -> Path:
    return root / "train" / INDEX


def with_others(**arrays: Any) -> Callable[[bytes], bytes]:
    """Replace arrays of an index; None removes one."""

    def change(content: bytes) -> bytes:
        with np.load(io.BytesIO(content)) as stored:
            changed = {**stored, **arrays}
        file = io.BytesIO()
        np.savez(file, allow_pickle=True, **{name: array for name, array in changed.items() if array is not None})
        return file.getvalue()

    return change


def compressed(content: bytes) -> bytes:
    """A small compressed file could expand to any size."""
    file = io.BytesIO()
    with np.load(io.BytesIO(content)) as stored:
        np.savez_compressed(file, **stored)
    return file.getvalue()


def of_any_length(content: bytes) -> bytes:
    """A header that announces 2^40 labels, without any data."""
    array, file = io.BytesIO(), io.BytesIO()
    np.lib.format.write_array_header_1_0(array, {"descr": "<i8", "fortran_order": False, "shape": (2**40,)})
    with np.load(io.BytesIO(with_others(labels=None)(content))) as stored:
        np.savez(file, **stored)
    with zipfile.ZipFile(file, "a") as parts:
        parts.writestr("labels.npy", array.getvalue())
    return file.getvalue()


def npy(_: bytes) -> bytes:
    file = io.BytesIO()
    np.save(file, np.arange(3))
    return file.getvalue()


ODD: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "cut off": lambda content: content[: len(content) // 2],
    "text": lambda content: b"no index",
    "one array": npy,
    "compressed": compressed,
    "of any length": of_any_length,
    **{f"without {name}": with_others(**{name: None}) for name in ShardIndex.__annotations__},
    "labels of floats": with_others(labels=np.array([0.0, 1.0])),
    "labels of text": with_others(labels=np.array([b"0", b"1"])),
    "labels of objects": with_others(labels=np.array([0, None])),
    "labels, one too few": with_others(labels=np.array([0])),
    "labels in rows": with_others(labels=np.array([[0], [1]])),
    "negative labels": with_others(labels=np.array([0, -1])),
    "unsigned labels": with_others(labels=np.array([0, 2**63], np.uint64)),
    "of bytes": with_others(labels=np.array([0, 1], np.int8)),
    "negative offsets": with_others(offsets=np.array([0, -1])),
    "beyond the end": with_others(sizes=np.array([10, 10**9])),
    "beyond 64 bits": with_others(offsets=np.array([0, 2**63 - 1])),
    "negative sizes": with_others(sizes=np.array([0, -1])),
    "of nothing": with_others(keys=np.array([], "S1"), **dict.fromkeys(("offsets", "sizes", "labels"), np.arange(0))),
    "more endings": with_others(endings=np.array([b".a", b".b", b".c"])),
    "as before": with_others(stamp=np.array([1, 2])),
}


@pytest.mark.parametrize("change", ODD.values(), ids=ODD)
def test_an_implausible_index_is_made_again(root: Path, change: Callable[[bytes], bytes]) -> None:
    sound = index_of(root).read_bytes()
    index_of(root).write_bytes(change(sound))
    assert labels(root) == [1, 0]
    with np.load(index_of(root)) as stored:
        assert stored["labels"].tolist() == [1, 0]


def test_a_pipe_is_no_index(root: Path) -> None:
    index_of(root).unlink()
    os.mkfifo(index_of(root))
    assert labels(root) == [1, 0]


def test_a_shard_with_the_same_size_and_time_is_another(root: Path) -> None:
    """Like a corrected shard whose times were set by rsync or by unpacking."""
    shard = root / "train" / TAR
    before = shard.stat()
    time.sleep(0.02)
    write_tar(shard, [("a", b"image of a", 0), ("b", b"image of b", 1)])
    os.utime(shard, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (shard.stat().st_size, shard.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert labels(root) == [0, 1]


@pytest.mark.parametrize(
    ("read_only", "seconds", "used"),
    [((TAR, INDEX), 0, True), ((TAR, INDEX), 1, False), ((TAR,), 0, False), ((INDEX,), 0, False), ((), 0, False)],
    ids=["both read-only", "written at another time", "shard read-only", "index read-only", "neither"],
)
def test_an_index_that_came_with_a_shard_to_a_read_only_file_system_is_used(
    root: Path, read_only: tuple[str, ...], seconds: int, used: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a container image: otherwise a thousand shards would be read completely at each start."""
    shard, read = shutil.copytree(root / "train", root / "copy") / TAR, []
    written = shard.stat().st_mtime_ns + seconds * 10**9
    os.utime(shard, ns=(written, written))
    flags = {name: os.ST_RDONLY for name in read_only}
    monkeypatch.setattr(os, "statvfs", lambda path: SimpleNamespace(f_flag=flags.get(path.name, 0)))
    shard_index.index_of(shard, lambda file: read.append(file) or tar_entries(file))
    assert bool(read) is not used


def test_a_file_system_ahead_of_the_clock_warns(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or one that updates times when a file is looked at: no index could ever be stored."""
    monkeypatch.setattr(time, "time_ns", lambda: 0)
    index_of(root).unlink()
    with pytest.warns(UserWarning, match=rf"^{root}/train: the index of {TAR} cannot be stored .* in the future\)$"):
        assert labels(root) == [1, 0]
    assert not index_of(root).exists()


def test_the_index_of_a_shard_that_was_just_written_is_not_kept(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If it were written again at once, it would look the same."""
    monkeypatch.setattr(shard_index, "_TICK", 10**12)
    index_of(root).unlink()
    assert labels(root) == [1, 0] and not index_of(root).exists()


def test_a_shard_that_changes_while_it_is_used_is_read_no_more(root: Path) -> None:
    source = data.scan(root)["train"]
    time.sleep(0.02)
    write_tar(root / "train" / TAR, [("a", b"image of A", 0), ("b", b"image of B", 1)])
    with pytest.raises(OSError, match="the shard has changed since its images were listed"):
        source.read(0)


def test_a_pipe_in_the_place_of_a_shard_is_not_waited_for(root: Path) -> None:
    source = data.scan(root)["train"]
    (root / "train" / TAR).unlink()
    os.mkfifo(root / "train" / TAR)
    with pytest.raises(OSError, match="the shard has changed since its images were listed"):
        source.read(0)


def test_an_image_has_a_limit_of_bytes(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = data.scan(root)["train"]
    monkeypatch.setattr(shards, "MOST_BYTES", 9)
    with pytest.raises(OSError, match="it has 10 bytes, more than the limit of 9"):
        source.read(0)


@each_kind
@pytest.mark.parametrize("label", [50_000, 2_000_000_000, 2**59])
def test_labels_are_no_sizes(root: Path, kind: str, label: int) -> None:
    pattern, write = WRITERS[kind]
    (root / "train" / TAR).unlink()
    (root / "val" / TAR).unlink()
    for split in ("train", "val"):
        write(root / split / pattern.format(0), EXAMPLES)
        write(root / split / pattern.format(1), [("c", b"image", label)])
    name = {"tar": "c.jpg"}.get(kind, "c.JPEG")
    said = rf"labels must be less than 50,000 .*; got {label} for {root}/train/{pattern.format(1)}/{name}$"
    with pytest.raises(ValueError, match=said):
        data.scan(root)


def test_as_many_classes_as_images(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "MOST_UNNAMED", 2)
    write_tar(root / "train" / TAR, [(f"{n}", b"image", label) for n, label in enumerate((0, 1, 3, 3))])
    with pytest.warns(UserWarning, match="val/ lacks 3"):
        assert data.scan(root)["train"].classes == ("0", "1", "2", "3")
    write_tar(root / "train" / TAR, [(f"{label}", b"image", label) for label in (0, 1, 4)])
    with pytest.raises(ValueError, match=r"labels must be less than 3 if no classes\.txt .*; got 4 for .*/4\.jpg$"):
        data.scan(root)
    (root / "classes.txt").write_text("a\nb\nc\nd\ne\n")
    with pytest.warns(UserWarning, match="val/ lacks e"):
        assert data.scan(root)["train"].labels.tolist() == [0, 1, 4]


def test_too_long_a_name_is_refused(root: Path) -> None:
    """A single long one would make all of them as long in memory."""
    write_tar(root / "train" / TAR, [("a" * 1021, b"image", 0), ("b", b"image", 1)])
    with pytest.raises(ValueError, match=r"000000\.tar: a name of 1025 bytes, b'aaa.*, is longer than 1024"):
        data.scan(root)


def test_shards_of_two_kinds_are_refused(root: Path) -> None:
    write_tfrecord(root / "train" / "some.tfrecord", EXAMPLES)
    with pytest.raises(ValueError, match=r"all shards must be of one kind, and there are \*\.tar and \*\.tfrecord$"):
        data.scan(root)


def test_folders_beside_shards_are_named(root: Path) -> None:
    (root / "train" / "n01440764").mkdir()
    (root / "train" / ".hidden").mkdir()
    with pytest.warns(UserWarning, match=r"train holds shards; the folders beside them are not read: n01440764$"):
        data.scan(root)


@pytest.mark.parametrize("name", ["lost+found", "@eaDir", ".snapshot"])
def test_what_systems_add_beside_shards_is_passed_over(
    root: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (root / "train" / name).mkdir()
    (root / "train" / f"._{TAR}").write_bytes(b"AppleDouble")
    (root / "train" / f"{INDEX}.0123.npz").touch()  # of a process that was killed
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert labels(root) == [1, 0]
    main(["data", "check", str(root)])
    assert "beside the shards" not in capsys.readouterr().out


def test_a_hidden_shard_beside_class_folders_is_none(tmp_path: Path) -> None:
    write_data_set(tmp_path, per_class=1, classes=2)
    (tmp_path / "train" / ".cache.tar").touch()
    assert data.scan(tmp_path)["train"].classes == ("class0", "class1")


@pytest.mark.parametrize("make", [lambda path: path.symlink_to("nowhere"), os.mkfifo], ids=["link", "pipe"])
def test_a_shard_that_is_no_file_is_named(root: Path, make: Callable[[Path], None]) -> None:
    make(root / "train" / "1.tar")
    with pytest.raises(ValueError, match=r"train: shards must be regular files, or links to some: 1\.tar$"):
        data.scan(root)


def test_what_an_index_says_is_what_was_read(root: Path) -> None:
    before = data.scan(root)["train"]
    index, not_stored = shard_index.index_of(root / "train" / TAR, lambda file: pytest.fail("it is kept"))
    assert not_stored == "" and isinstance(index, ShardIndex) and index.others == before.others == {".json": 2}
