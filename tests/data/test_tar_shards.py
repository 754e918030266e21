"""Tar shards: every image and class in a tar file is used, refused or named, whatever kind of member it is."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastadv import data
from fastadv.cli import main
from fastadv.data import Preprocessing
from fastadv.data.sources.shard_index import Contents
from fastadv.data.sources.tar import tar_entries
from fastadv.pixels import PixelSpace
from tests.data.loaders import each
from tests.data.pictures import jpeg

Member = tuple[str, bytes | str | None]  # a name and its content, a symbolic link's target, or None for a folder
A: list[Member] = [("a.jpg", b"image of a"), ("a.cls", b"1")]
HARD = "hard link to "
BLOCK = tarfile.BLOCKSIZE
SIZE, TYPE = 124, 156  # where a header has them


def tar_of(members: list[Member], kind: int = tarfile.PAX_FORMAT) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=kind) as tar:
        for name, content in members:
            member = tarfile.TarInfo(name)
            if isinstance(content, bytes):
                member.size = len(content)
            else:
                target = content or ""
                member.type = tarfile.DIRTYPE if content is None else tarfile.SYMTYPE
                member.type = tarfile.LNKTYPE if target.startswith(HARD) else member.type
                member.linkname = target.removeprefix(HARD)
            tar.addfile(member, io.BytesIO(content) if isinstance(content, bytes) else None)
    return file.getvalue()


def contents(path: Path, content: bytes) -> Contents:
    (path / "some.tar").write_bytes(content)
    return tar_entries(path / "some.tar")


LONG = "folder/" * 30 + "x" * 120
USED: dict[str, tuple[list[Member], list[tuple[str, bytes, int]]]] = {
    "in any order": ([A[1], ("b.cls", b"2"), ("b.png", b"b"), A[0]], [("b.png", b"b", 2), ("a.jpg", b"image of a", 1)]),
    "hard link": ([*A, ("b.jpg", HARD + "a.jpg"), ("b.cls", b"0")], [("a.jpg", A[0][1], 1), ("b.jpg", A[0][1], 0)]),
    "hard link to a class": (
        [*A, ("b.jpg", b"b"), ("b.cls", HARD + "./a.cls")],
        [("a.jpg", A[0][1], 1), ("b.jpg", b"b", 1)],
    ),
    "symbolic link": (
        [("d/b.jpg", "../a.jpg"), ("d/b.cls", "./b.txt"), ("d/b.txt", b"7"), *A],
        [("d/b.jpg", A[0][1], 7), ("a.jpg", A[0][1], 1)],
    ),
    "links to links": (
        [*A, ("c", "a.jpg"), ("b.jpg", HARD + "c"), ("b.cls", b"0")],
        [("a.jpg", A[0][1], 1), ("b.jpg", A[0][1], 0)],
    ),
    "long names": ([(f"{LONG}.jpg", b"long"), (f"{LONG}.cls", b"3")], [(f"{LONG}.jpg", b"long", 3)]),
    "folders": ([("v1.2", None), ("v1.2/é.JPG", b"x"), ("v1.2/é.CLS", b"3")], [("v1.2/é.JPG", b"x", 3)]),
    "from here": ([("./a.jpg", b"x"), ("./a.cls", b"3")], [("./a.jpg", b"x", 3)]),
    "text of an editor": ([("a.jpg", b"x"), ("a.cls", b"\xef\xbb\xbf 007\r\n")], [("a.jpg", b"x", 7)]),
}


@pytest.mark.parametrize("kind", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT], ids=["pax", "gnu"])
@pytest.mark.parametrize(("members", "expected"), USED.values(), ids=USED)
def test_what_is_used(members: list[Member], expected: list[tuple[str, bytes, int]], kind: int, tmp_path: Path) -> None:
    packed = tar_of(members, kind)
    found = contents(tmp_path, packed)
    assert [(key, packed[start : start + size], label) for key, start, size, label in found.entries] == expected
    assert not found.lost


@pytest.mark.parametrize(
    ("members", "lost", "others"),
    [
        ([("v1.2_b.png", b"x"), ("v1.2_b.cls", b"0")], ["v1.2_b.png"], {".cls": 1}),
        ([("a.2_b.png", b"x"), ("a.2_b.cls", b"0")], ["a.2_b.png"], {".cls": 1}),
        ([("b.left.png", b"x"), ("b.right.png", b"x"), ("b.cls", b"0")], ["b.cls", "b.left.png", "b.right.png"], {}),
        (
            [("a.mask.png", b"x"), ("a.json", b"{}"), ("README", b""), (".b.jpg", b"x")],
            [],
            {".png": 1, ".json": 1, "": 1, ".jpg": 1},
        ),
        ([("b.cls", b"0"), ("c.gif", b"x"), ("c.cls", b"1")], ["b.cls", "c.cls"], {".gif": 1}),
        (
            [(".jpg", b"x"), ("d/._b.png", b"x"), ("__notes__/b.jpg", b"x"), ("d", None)],
            [],
            {"": 1, ".png": 1, ".jpg": 1},
        ),
    ],
)
def test_what_is_not_used_is_counted(
    members: list[Member], lost: list[str], others: dict[str, int], tmp_path: Path
) -> None:
    found = contents(tmp_path, tar_of([*A, *members]))
    assert [entry.key for entry in found.entries] == ["a.jpg"]
    assert list(found.lost) == lost and found.others == others


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ([("b.jpg", b"x")], r"no \.cls file with the class of b\. If"),
        ([("a.cls", b"2")], r"an example has one image and one \.cls file, but a\.cls is a second one"),
        ([("a.CLS", b"1")], r"a\.CLS is a second"),
        ([("a.PNG", b"x")], r"a\.PNG is a second"),
        ([("b.jpg", "/a.jpg"), ("b.cls", b"1")], r"images and classes must be files, or links to files in it: b\.jpg$"),
        ([("b.jpg", "b.jpg"), ("b.cls", HARD + "c.cls"), ("c.cls", b"1")], r"or links to files in it: b\.jpg, b\.cls$"),
        ([("d", None), ("b.jpg", "d"), ("b.cls", b"1")], r"or links to files in it: b\.jpg$"),
        *(
            ([("b.jpg", b"x"), ("b.cls", text)], r"some\.tar: 'b\.cls' must hold the number of a class, from 0, got b'")
            for text in (b"", b"-1", b"1_0", b"1.0", b"1 2", b"cat", b"1" + b" " * 64, b"1" * 19, "1".encode("utf-16"))
        ),
    ],
)
def test_what_is_refused(members: list[Member], said: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=said) as error:
        contents(tmp_path, tar_of([*A, *members]))
    assert "\n" not in str(error.value)


def changed(header: int, place: int, value: bytes) -> Callable[[bytes], bytes]:
    """Change a header of a tar file, and update its checksum."""

    def change(packed: bytes) -> bytes:
        content, start = bytearray(packed), header * BLOCK
        content[start + place : start + place + len(value)] = value
        content[start + 148 : start + 156] = b" " * 8
        content[start + 148 : start + 156] = b"%06o\0 " % sum(content[start : start + BLOCK])
        return bytes(content)

    return change


def binary(number: int) -> bytes:
    """Encode a number like those above eight gigabytes, and negative ones, in a header."""
    return (b"\xff" if number < 0 else b"\x80") + (number % 2**88).to_bytes(11, "big")


def of_pax(size: str) -> Callable[[bytes], bytes]:
    """Give the second member a size in an extra header before it."""
    member = tarfile.TarInfo("a.cls")
    member.size, member.pax_headers = 1, {"size": size}
    return lambda packed: packed[: 2 * BLOCK] + member.tobuf(tarfile.PAX_FORMAT) + packed[3 * BLOCK :]


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (changed(0, SIZE, binary(-2 * BLOCK)), "the size of 'a.jpg' is negative"),
        (changed(2, SIZE, binary(-3 * BLOCK)), "the size of 'a.cls' is negative"),
        (of_pax(str(-6 * BLOCK)), "the size of 'a.cls' is negative"),
        (of_pax(str(10**6)), "'a.cls' extends beyond the end"),
        (changed(0, SIZE, b"00000777777"), "'a.jpg' extends beyond the end"),
        (changed(2, SIZE, binary(2**62)), "'a.cls' extends beyond the end"),
        (changed(2, SIZE, binary(2**80)), "'a.cls' extends beyond the end"),
        (
            lambda packed: changed(2, TYPE, b"Z")(changed(2, SIZE, binary(2**62))(packed)),
            "'a.cls' extends beyond the end",
        ),
        (changed(2, TYPE, tarfile.GNUTYPE_SPARSE), "'a.cls' is stored sparsely"),
        (
            lambda packed: changed(0, TYPE, b"L")(changed(0, SIZE, binary(2**40))(packed)),
            "a header of .* is longer than",
        ),
        (lambda packed: packed[: 4 * BLOCK], "it ends at byte 2048, without the zeros that mark the end"),
        (lambda packed: packed[: 2 * BLOCK + 100], "it ends at byte 1024, without the zeros"),
        (lambda packed: packed[: 3 * BLOCK + 1], "unexpected end of data"),
        (lambda packed: packed[: 2 * BLOCK] + b"?" + packed[2 * BLOCK + 1 :], "the header at byte 1024 is damaged"),
        (
            lambda packed: packed + tar_of([("b.jpg", b"x"), ("b.cls", b"0")]),
            "data follows its end at byte 2048",
        ),
        (gzip.compress, r"it is compressed \(gzip\)"),
        (bz2.compress, r"it is compressed \(bzip2\)"),
        (lzma.compress, r"it is compressed \(xz\)"),
    ],
)
def test_a_damaged_tar_is_named(damage: Callable[[bytes], bytes], said: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"some\.tar is not a complete, uncompressed tar shard: {said}") as error:
        contents(tmp_path, damage(tar_of(A)))
    assert "\n" not in str(error.value)


@settings(deadline=None)
@given(st.data())
def test_a_tar_with_other_bytes_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, draw: st.DataObject
) -> None:
    """What is read is in the file, at the position that tarfile has for the member."""
    packed = tar_of(
        [*A, ("long" * 30 + ".jpg", HARD + "a.jpg"), ("long" * 30 + ".cls", b"0")],
        draw.draw(st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])),
    )
    for header in draw.draw(st.lists(st.integers(0, len(packed) // BLOCK - 1), max_size=2)):
        value = draw.draw(st.one_of(st.binary(min_size=1, max_size=12), st.integers(-(2**70), 2**70).map(binary)))
        packed = changed(header, draw.draw(st.sampled_from([0, SIZE, SIZE + 8, TYPE, 157, 345])), value)(packed)
    packed = packed[: draw.draw(st.integers(0, len(packed)) | st.just(len(packed)))]
    path = tmp_path_factory.getbasetemp()
    try:
        found = contents(path, packed)
    except ValueError as error:
        assert str(error).startswith(str(path))
        return
    with tarfile.open(path / "some.tar") as tar:
        for key, start, size, _ in found.entries:
            assert 0 <= start <= start + size <= len(packed)
            assert tar.extractfile(key).read() == packed[start : start + size]


@pytest.fixture
def roots(tmp_path: Path) -> dict[str, Path]:
    """The same three images, one of them twice, stored directly and by links."""
    images = [jpeg(40, 50, seed) for seed in range(3)]
    plain: list[Member] = [
        member
        for number, image in enumerate([*images, images[0]])
        for member in ((f"{number}.jpg", image), (f"{number}.cls", b"%d" % (number // 2)))
    ]
    linked: list[Member] = [
        ("0.jpg", "of/zero"),
        *plain[1:6],
        ("of/zero", images[0]),
        ("3.jpg", HARD + "of/zero"),
        ("3.cls", HARD + "2.cls"),
        ("2.json", b"{}"),
    ]
    found = {"plain": tmp_path / "plain", "linked": tmp_path / "linked"}
    for root, members in zip(found.values(), (plain, linked), strict=True):
        for split in ("train", "val"):
            (root / split).mkdir(parents=True)
            (root / split / "0.tar").write_bytes(tar_of(members))
    return found


@each("loader")
def test_training_sees_what_links_lead_to(roots: dict[str, Path], loader: type[data.ImageLoader]) -> None:
    options: dict[str, Any] = {
        "space": PixelSpace.unit(),
        "train": True,
        "preprocessing": Preprocessing(size=16),
        "workers": 1,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plain, linked = (next(iter(loader(data.scan(root)["train"], 4, **options).epoch(0))) for root in roots.values())
    assert torch.equal(plain[0], linked[0]) and torch.equal(plain[1], linked[1])


def test_the_check_counts_what_is_not_used(roots: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    train = roots["linked"] / "train"
    (train / "0.tar").write_bytes(
        tar_of([*A[1:], ("a.jpg", jpeg(9, 9)), ("b.cls", b"0"), ("c.v2.jpg", b"x"), ("c.v2.cls", b"0"), ("a.txt", b"")])
    )
    (train / "1.tar.gz").write_bytes(b"")
    assert main(["data", "check", str(roots["linked"]), "--workers", "1"]) == 0
    shown = capsys.readouterr()
    assert (
        f"warning: {train}: 2 files in the shards not used: 0.tar/b.cls, 0.tar/c.v2.jpg. An example is KEY" in shown.err
    )
    inside = "left out inside the shards, neither images nor classes"
    assert shown.out.splitlines()[:3] == [
        f"{train}: 1 file left out beside the shards: 1 .gz",
        f"{train}: 2 files {inside}: 1 .cls, 1 .txt",
        f"{roots['linked'] / 'val'}: 2 files {inside}: 1 without an ending, 1 .json",
    ]
