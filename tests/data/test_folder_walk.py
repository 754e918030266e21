"""Class folders with cyclic links, hidden folders, and things that are not files."""

from __future__ import annotations

import os
import tempfile
import warnings
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastadv import data
from fastadv.cli import main
from fastadv.data import ImageLoader, Preprocessing, TorchvisionLoader
from fastadv.data.sources.base import MOST_BYTES
from fastadv.data.sources.folder_walk import files_below
from fastadv.pixels import PixelSpace
from tests.data.loaders import each
from tests.data.pictures import jpeg, write_data_set, write_folder

pytestmark = pytest.mark.timeout(60)  # what waits for a pipe waits for ever


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two classes with two images each per split, and other files beside the data set."""
    root = tmp_path / "above" / "set"
    write_data_set(root, per_class=2, classes=2)
    (root.parent / "other.jpg").write_bytes(jpeg(8, 8))
    return root


def keys(source: data.ImageSource) -> list[str]:
    return [source.key(index) for index in range(len(source))]


ALL = [f"class{label}/00{number}.JPEG" for label in range(2) for number in range(2)]


@pytest.mark.parametrize(
    "links",
    [
        {"class0/here": "."},
        {"class0/one": ".", "class0/two": "."},
        {"class0/split": ".."},
        {"class0/set": "../..", "class1/set": "../.."},
        {"class0/above": "../../.."},
        {"class0/everything": "/"},
        {"class0/a": "b", "class0/b": "a"},
        {"class0/itself": "itself"},
    ],
    ids=lambda links: " ".join(links),
)
def test_links_that_lead_back_are_passed_over(root: Path, links: dict[str, str]) -> None:
    for link, target in links.items():
        (root / "train" / link).symlink_to(target)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert keys(data.scan(root)["train"]) == ALL
    if any((root / "train" / link).is_dir() for link in links if not link.endswith("itself")):
        (warning,) = said
        assert str(warning.message).startswith(f"{root / 'train'}: skipped links to folders that contain them")
        assert all(link in str(warning.message) for link in links)


def test_each_folder_is_read_once_despite_links(root: Path, tmp_path: Path) -> None:
    """Two links in each of 30 folders give 2^30 paths."""
    levels = [tmp_path / f"level{number}" for number in range(30)]
    for level, below in zip(levels, [*levels[1:], None], strict=True):
        level.mkdir()
        (level / "image.jpg").write_bytes(jpeg(8, 8))
        for name in ("left", "right") if below else ():
            (level / name).symlink_to(below)
    (root / "train" / "class0" / "far").symlink_to(levels[0])
    with pytest.warns(UserWarning, match=r"skipped links .*/right"):
        assert len(data.scan(root)["train"]) == 4 + 30


def test_folders_come_before_links_to_them(root: Path) -> None:
    write_folder(root / "train" / "class0", {"z": [jpeg(8, 8)]})
    (root / "train" / "class0" / "a").symlink_to("z")
    with pytest.warns(UserWarning, match=r"skipped links .* already: class0/a$"):
        assert keys(data.scan(root)["train"]) == [*ALL[:2], "class0/z/000.JPEG", *ALL[2:]]


def test_a_link_to_another_class_is_followed_and_named(root: Path) -> None:
    """Its images have two labels, which no metric would show."""
    (root / "train" / "class1" / "more").symlink_to("../class0")
    said = rf"images belong to more than one class, .*: {root / 'train' / 'class0'} \(class0 and class1\)$"
    with pytest.warns(UserWarning, match=said):
        assert len(data.scan(root)["train"]) == 6


def test_a_class_that_is_the_split_itself_has_no_images(root: Path) -> None:
    (root / "train" / "class2").symlink_to(".")
    with pytest.warns(UserWarning, match="skipped links"), pytest.raises(ValueError, match="class folders class2: put"):
        data.scan(root)


@pytest.mark.parametrize("name", [".ipynb_checkpoints", ".git", "__MACOSX", "@eaDir", "lost+found"])
def test_hidden_folders_and_those_of_systems_are_not_read(
    root: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for above in (root / "train", root / "train" / "class0"):
        write_folder(above, {name: [jpeg(8, 8)]})
    (root / "train" / "class0" / "._000.JPEG").write_bytes(b"AppleDouble")
    (root / "train" / "class0" / ".DS_Store").write_bytes(b"Bud1")
    assert keys(data.scan(root)["train"]) == ALL
    assert main(["data", "check", str(root)]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_a_folder_that_cannot_be_read_is_an_error(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody would notice the missing training data."""
    (root / "train" / "class0" / "locked").mkdir()
    scandir = os.scandir

    def locked(path: Any) -> Any:
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", locked)
    with pytest.raises(PermissionError, match="locked"):
        files_below(root / "train" / "class0", root / "train")


PLACES = ("", "set", "set/a", "set/a/x", "set/a/x/y", "set/b", "far", "far/near")


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(PLACES), st.sampled_from(PLACES)), max_size=6))
def test_links_of_any_kind(links: list[tuple[str, str]]) -> None:
    """Each file is listed once: always those of the class itself, never through a folder that contains the class."""
    with tempfile.TemporaryDirectory() as name:
        top = Path(name).resolve()
        for place in PLACES:
            (top / place).mkdir(exist_ok=True)
            (top / place / "image.jpg").touch()
        for number, (place, target) in enumerate(links):
            (top / place / f"link{number}").symlink_to(top / target)
        found = [(top / "set" / "a" / file) for file in files_below(top / "set" / "a", top / "set").files]
        real = {file.resolve().relative_to(top).parent.as_posix() for file in found}
        assert len(real) == len(found)
        assert {"set/a", "set/a/x", "set/a/x/y"} <= real
        assert not real & {".", "set"}


# --- not regular files -----------------------------------------------------------------------------------------------


def spoil(folder: Path) -> dict[str, str]:
    """Things with the name of an image, and the message about each."""
    os.mkfifo(folder / "pipe.jpg")
    for name, target in (("zero.jpg", "/dev/zero"), ("tty.jpg", "/dev/ptmx"), ("pipe-link.jpg", "pipe.jpg")):
        (folder / name).symlink_to(target)
    with (folder / "large.jpg").open("wb") as file:
        file.truncate(MOST_BYTES + 1)
    said = {
        "pipe.jpg": "this is a named pipe, not",
        "pipe-link.jpg": "this is a named pipe, not",
        "zero.jpg": "this is a device, not",
    }
    return said | {"tty.jpg": "this is a device, not", "large.jpg": "more than the limit of 268,435,456"}


@each("kind")
def test_what_is_no_regular_file_is_named_and_left_out(kind: type[ImageLoader], root: Path) -> None:
    said = spoil(root / "val" / "class0")
    source = data.scan(root)["val"]
    options = {"preprocessing": Preprocessing(size=8), "workers": kind is not TorchvisionLoader}
    loader = kind(source, 16, space=PixelSpace.raw(), train=False, **options)
    bad: list[data.BadImage] = []
    loader.on_bad_image = bad.append
    ((_, labels),) = loader.epoch(0)
    assert labels.tolist() == [0, 0, 1, 1]
    reasons = {Path(one.name).name: one.reason for one in bad}
    assert reasons.keys() == said.keys() and all(words in reasons[name] for name, words in said.items())


def test_the_check_lists_them(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = spoil(root / "val" / "class0")
    assert main(["data", "check", str(root)]) == 1
    *lines, last = capsys.readouterr().out.splitlines()
    assert len(lines) == len(said) and last.startswith(f"{len(said)} of {8 + len(said)} images do not decode")
    with pytest.warns(UserWarning, match=f"leaves out {len(said)} of"):
        assert len(data.load_test("imagenet", root)) == 4


@pytest.mark.parametrize("name", ["classes.txt", "fastadv-manifest.json"])
def test_a_pipe_beside_the_images_is_an_error(root: Path, name: str) -> None:
    os.mkfifo(root / name)
    with pytest.raises(OSError, match=f"this is a named pipe, not a regular file: .*{name}"):
        data.load("imagenet", root)
