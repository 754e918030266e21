"""Class names: their numbers, encodings of classes.txt, and names that are easily confused."""

from __future__ import annotations

import os
import tempfile
import warnings
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastadv import data
from fastadv.data.sources.class_names import named_classes, similar_names
from tests.data.pictures import jpeg, write_folder

ACCENTED, COMBINED = "caf\u00e9", "cafe\u0301"


def write(root: Path, *names: str, splits: tuple[str, ...] = ("train", "val")) -> None:
    for split in splits:
        write_folder(root / split, {name: [jpeg(8, 8)] for name in names})


def scanned(root: Path) -> tuple[tuple[str, ...], list[str]]:
    """Class names, and the warnings."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        classes = data.scan(root)["train"].classes
    return classes, [str(one.message) for one in said]


@pytest.mark.parametrize(
    "content",
    [
        b"cat\ndog\n",
        b"\xef\xbb\xbfcat\ndog\n",
        b"cat\r\ndog\r\n",
        b" cat \t\ndog   \n   \n",
        "\ufeffcat\r\ndog\r\n".encode("utf-16-le"),
        "\ufeffcat\ndog".encode("utf-16-be"),
    ],
    ids=["plain", "byte order mark", "Windows", "blanks", "UTF-16", "UTF-16, big end first"],
)
def test_classes_txt_as_programs_write_it(tmp_path: Path, content: bytes) -> None:
    write(tmp_path, "cat", "dog")
    (tmp_path / "classes.txt").write_bytes(content)
    assert scanned(tmp_path) == (("cat", "dog"), [])


@pytest.mark.parametrize("content", ["cat\ndog\n".encode("utf-16-le"), b"\xff\xfec\x00a", b"\0", b"a\0b"])
def test_what_is_no_text_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "classes.txt").write_bytes(content)
    with pytest.raises(ValueError, match=r"classes\.txt is not text, or not in UTF-8 \(.*\): save it as UTF-8"):
        named_classes(tmp_path)


@pytest.mark.parametrize(("content", "line"), [("cat\n\ndog\n", 2), ("\ncat\n", 1), ("cat\ndog\n \t\r\nemu", 3)])
def test_a_blank_line_between_names_is_refused(tmp_path: Path, content: str, line: int) -> None:
    """Labels of shards are line numbers: skipping the line would change the classes after it."""
    (tmp_path / "classes.txt").write_text(content)
    with pytest.raises(ValueError, match=rf"classes\.txt: line {line} is blank"):
        named_classes(tmp_path)


@pytest.mark.parametrize("content", [b"", b"\n", b" \t\r\n\n", b"\xef\xbb\xbf", "\ufeff\n".encode("utf-16-le")])
def test_a_file_that_names_no_class_is_refused(tmp_path: Path, content: bytes) -> None:
    """Ignoring it could change the numbers of the classes: the file may have been truncated."""
    (tmp_path / "classes.txt").write_bytes(content)
    with pytest.raises(ValueError, match=rf"^{tmp_path}/classes\.txt names no class: .*"):
        named_classes(tmp_path)


@settings(max_examples=30, deadline=None)
@given(st.one_of(st.binary(max_size=20), st.binary(max_size=20).map(lambda rest: b"\xff\xfe" + rest)))
def test_any_bytes_are_names_or_an_error_of_one_kind(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "classes.txt").write_bytes(content)
        with suppress(ValueError):
            names = named_classes(Path(name))
            assert all(one == one.strip(" \t\r") and not {"\0", "\n"} & set(one) for one in names)
            assert names and "" not in names


@pytest.mark.parametrize("name", ["classes.txt", "fastadv-manifest.json"])
def test_a_link_that_leads_nowhere_is_not_taken_for_no_file(tmp_path: Path, name: str) -> None:
    """Otherwise classes would silently have other numbers, or bad images would be used."""
    write(tmp_path, "cat")
    (tmp_path / name).symlink_to(tmp_path / "gone")
    with pytest.raises(FileNotFoundError, match=name):
        data.load("imagenet", tmp_path)


@pytest.mark.parametrize(
    ("named", "says"),
    [
        (None, r"so that classes may be missing: bat\. Remove or fix them, or name all classes in .*/classes\.txt"),
        ("ape\nbat\ncat\n", r"so that images of classes are missing: bat\. Remove or fix them$"),
        ("ape\ncat\n", None),  # it is a class by no means
    ],
    ids=["no classes.txt", "named", "not named"],
)
def test_a_class_on_a_disk_that_is_gone_is_an_error(tmp_path: Path, named: str | None, says: str | None) -> None:
    """The classes after it would have other numbers, or accuracy would be over fewer classes."""
    write(tmp_path, "ape", "cat")
    for split in ("train", "val"):
        (tmp_path / split / "bat").symlink_to(tmp_path / "gone")
    if named is not None:
        (tmp_path / "classes.txt").write_text(named)
    if says is None:
        assert scanned(tmp_path) == (("ape", "cat"), [])
    else:
        with pytest.raises(ValueError, match=says):
            data.scan(tmp_path)


def test_a_folder_whose_name_is_not_utf_8_can_be_named(tmp_path: Path) -> None:
    """As written by ``ls train > classes.txt``."""
    write(tmp_path, os.fsdecode(b"caf\xe9"), "tea")
    (tmp_path / "classes.txt").write_bytes(b"tea\ncaf\xe9\n")
    assert scanned(tmp_path) == (("tea", "caf\udce9"), [])


@pytest.mark.parametrize(
    ("names", "moved"),
    [
        ([str(number) for number in range(12)], "10 is class 2."),
        (["1", "2", "10"], "10 is class 1."),
        ([f"{number:02}" for number in range(12)], None),
        ([str(number) for number in range(10)], None),
        (["1", "2", "10", "cat"], None),
    ],
)
def test_numeric_folders_are_sorted_by_name_with_a_warning(tmp_path: Path, names: list[str], moved: str | None) -> None:
    write(tmp_path, *names)
    classes, said = scanned(tmp_path)
    assert classes == tuple(sorted(names)) and len(said) == (moved is not None)
    if moved:
        assert said[0].startswith(f"{tmp_path}: the class folders are numbers, and") and moved in said[0]
        assert "(ls train | sort -n > classes.txt)" in said[0]
        (tmp_path / "classes.txt").write_text("\n".join(sorted(names, key=int)))
        assert scanned(tmp_path) == (tuple(sorted(names, key=int)), [])


def test_similar_class_names_warn(tmp_path: Path) -> None:
    write(tmp_path, "Cat", "cat", "dog", ACCENTED, COMBINED)
    classes, (said,) = scanned(tmp_path)
    assert len(classes) == 5
    assert said.endswith(r"are separate classes: 'Cat' and 'cat', 'cafe\u0301' and 'caf\xe9'")


def test_splits_that_differ_by_the_form_of_a_name_say_so(tmp_path: Path) -> None:
    """As after copying one of them through macOS: without the hint, the message would name one class twice."""
    write(tmp_path, ACCENTED, "tea", splits=("train",))
    write(tmp_path, COMBINED, "tea", splits=("val",))
    hint = r"; these differ only in case or in the Unicode form of accents: 'cafe\\u0301' and 'caf\\xe9'$"
    with pytest.raises(ValueError, match=f"must have the same class folders, .*{hint}"):
        data.scan(tmp_path)
    (tmp_path / "classes.txt").write_text(f"{ACCENTED}\ntea\n", encoding="utf-8")
    with pytest.raises(ValueError, match=f"val: the class folders .* are not among the 2 classes .*{hint}"):
        data.scan(tmp_path)


def test_alike_by_hand() -> None:
    assert similar_names(["a", "b", "A", "c", "\u00e4", "a\u0308"]) == [["a", "A"], ["\u00e4", "a\u0308"]]
    assert similar_names(["a", "b"]) == []
