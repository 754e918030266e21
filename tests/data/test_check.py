"""fastadv data check, and the manifest that training honours."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fastadv import data
from fastadv.cli import main
from fastadv.data.manifest import FILE
from tests.data.pictures import damaged, real_world, write_data_set, write_folder

BAD = ("train/class0/001.JPEG", "train/class1/002.JPEG", "val/class1/000.JPEG")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_data_set(tmp_path, per_class=3, classes=2)
    for path, content in zip(BAD, damaged().values(), strict=False):
        (tmp_path / path).write_bytes(content)
    return tmp_path


def check(root: Path) -> int:
    return main(["data", "check", str(root), "--workers", "1"])


def names(source: data.ImageSource) -> list[str]:
    return [source.key(index) for index in range(len(source))]


def test_bad_files_are_listed_and_left_out(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(root) == 1
    *lines, last = capsys.readouterr().out.splitlines()
    assert [line.partition(": ")[0] for line in lines] == [str(root / path) for path in BAD]
    assert all(line.partition(": ")[2] for line in lines)
    assert last == f"3 of 12 images do not decode; written: {root / FILE}"
    with pytest.warns(UserWarning, match="leaves out") as said:
        images = data.load("imagenet", root)
    assert [str(one.message).partition("leaves out ")[2] for one in said] == [
        "2 of 6 train images",
        "1 of 6 val images",
    ]
    assert names(images.train) == ["class0/000.JPEG", "class0/002.JPEG", "class1/000.JPEG", "class1/001.JPEG"]
    assert names(images.test) == [
        *(f"class0/{number:03}.JPEG" for number in range(3)),
        "class1/001.JPEG",
        "class1/002.JPEG",
    ]
    assert images.train.labels.tolist() == [0, 0, 1, 1]


def test_several_workers_find_the_same(root: Path) -> None:
    check(root)
    alone = (root / FILE).read_bytes()
    assert main(["data", "check", str(root), "--workers", "2"]) == 1
    assert (root / FILE).read_bytes() == alone


def test_a_good_set_of_all_kinds_is_good(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for split in ("train", "val"):
        write_folder(tmp_path / split, {"all": list(real_world().values())})
    assert check(tmp_path) == 0
    assert capsys.readouterr().out.startswith("0 of 38 images do not decode")
    assert len(data.load("imagenet", tmp_path).train) == 19


def test_every_damage_is_found(tmp_path: Path) -> None:
    for split in ("train", "val"):
        write_folder(tmp_path / split, {"all": [*damaged().values(), real_world()["usual"]]})
    (tmp_path / "val" / "all" / "link.jpg").symlink_to(tmp_path / "nowhere")
    assert check(tmp_path) == 1
    left_out = json.loads((tmp_path / FILE).read_text())["splits"]
    assert len(left_out["train"]["left_out"]) == len(damaged())
    assert [one["reason"] for one in left_out["val"]["left_out"]][-1] == "No such file or directory"
    with pytest.warns(UserWarning, match="leaves out") as said:
        assert len(data.load("imagenet", tmp_path).test) == 1
    assert str(said[1].message).endswith("leaves out 7 of 8 val images")


def mended(root: Path) -> None:
    (root / BAD[0]).write_bytes(real_world()["usual"])


def gone(root: Path) -> None:
    (root / "val" / "class0" / "000.JPEG").unlink()


def renamed(root: Path) -> None:
    (root / "val" / "class0" / "000.JPEG").rename(root / "val" / "class0" / "zero.JPEG")


@pytest.mark.parametrize("change", [mended, gone, renamed])
def test_a_stale_manifest_is_refused_until_checked_again(root: Path, change: Callable[[Path], None]) -> None:
    check(root)
    change(root)
    with pytest.raises(ValueError, match=f"{FILE} is stale: .*run fastadv data check again, or delete the file"):
        data.load("imagenet", root)
    check(root)
    with pytest.warns(UserWarning, match="leaves out"):
        data.load("imagenet", root)


def test_a_manifest_moves_with_its_data_set(root: Path) -> None:
    check(root)
    moved = root.with_name(root.name + " moved")
    root.rename(moved)
    with pytest.warns(UserWarning, match="leaves out"):
        assert len(data.load("imagenet", moved).train) == 4


@pytest.mark.parametrize("content", ["", "{}", '{"format": 0, "splits": {}}', '{"format": 1, "splits": {"train": {}}}'])
def test_what_is_no_manifest_is_refused(root: Path, content: str) -> None:
    (root / FILE).write_text(content)
    with pytest.raises(ValueError, match=f"{FILE} is not a manifest of this version"):
        data.load("imagenet", root)


def test_a_manifest_of_other_splits_is_refused(root: Path) -> None:
    (root / FILE).write_text('{"format": 1, "splits": {}}')
    with pytest.raises(ValueError, match="is stale: it is not of train and val"):
        data.load("imagenet", root)


def test_mistakes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(tmp_path / "absent") == 2
    assert "absent is not a folder" in capsys.readouterr().err
    for arguments in ([], ["check"], ["check", str(tmp_path), "--workers", "0"]):
        with pytest.raises(SystemExit) as left:
            main(["data", *arguments])
        assert left.value.code == 2


def test_a_manifest_that_cannot_be_written(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / FILE).mkdir()
    (root / FILE / "occupied").touch()
    assert check(root) == 1
    assert FILE in capsys.readouterr().err


def test_help_says_what_a_newcomer_needs() -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "fastadv", "data", "check", "--help"], capture_output=True, text=True, check=True
    ).stdout
    for words in ("train/CLASS/IMAGE", FILE, "exit codes: 0 all images decode; 1", "example:", "--workers"):
        assert words in shown
