"""fastadv data check, and the manifest that training uses."""

from __future__ import annotations

import errno
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from fastadv import data
from fastadv.cli import main
from fastadv.data.sources import scan
from fastadv.data.sources.base import Selection
from fastadv.data.sources.folder import ImageFolder
from fastadv.data.sources.manifest import FILE
from fastadv.pixels import PixelSpace
from fastadv.utils import slow_work
from fastadv.utils.log import log_to_stderr
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
        "2 of 6 train images (class0/001.JPEG, class1/002.JPEG): the next image takes the place of each",
        "1 of 6 val images (class1/000.JPEG)",
    ]
    assert len(images.train) == 6 and images.train.left_out == {1, 5}
    assert names(images.test) == [
        *(f"class0/{number:03}.JPEG" for number in range(3)),
        "class1/001.JPEG",
        "class1/002.JPEG",
    ]
    assert images.test.left_out == frozenset()
    some = Selection(images.train, torch.tensor([5, 0, 1]))
    assert some.left_out == {0, 2}


@pytest.mark.parametrize("removed", ["train", "val"])
def test_a_split_alone(root: Path, removed: str, capsys: pytest.CaptureFixture[str]) -> None:
    """val/ suffices for evaluation; training needs both."""
    (root / removed).rename(root / "elsewhere")
    there = {"train": "val", "val": "train"}[removed]
    assert check(root) == 1
    assert capsys.readouterr().out.splitlines()[0] == f"{root} has no {removed}/: only {there}/ is checked"
    with pytest.raises(FileNotFoundError, match=f"has no {removed}/: it must hold train/CLASS/IMAGE and val/CLASS"):
        data.load("imagenet", root)
    if removed == "val":
        with pytest.raises(FileNotFoundError, match=r"has no val/: it must hold val/CLASS/IMAGE, or shards .* val/$"):
            data.load_test("imagenet", root)
        return
    with pytest.warns(UserWarning, match=r"leaves out 1 of 6 val images \(class1/000\.JPEG\)$"):
        assert len(data.load_test("imagenet", root)) == 5
    (root / "elsewhere").rename(root / removed)
    with pytest.raises(ValueError, match=f"{FILE} is stale: it does not cover train: run fastadv data check"):
        data.load("imagenet", root)


def test_an_evaluation_does_not_warn_of_training_images(root: Path) -> None:
    check(root)
    with pytest.warns(UserWarning) as said:
        images = data.load_test("imagenet", root)
    assert len(said) == 1 and "val images" in str(said[0].message)
    assert names(images) == names(data.scan(root)["val"])[:3] + names(data.scan(root)["val"])[4:]


def test_training_and_evaluation_go_without_a_word(root: Path) -> None:
    check(root)
    with pytest.warns(UserWarning, match="leaves out"):
        images = data.load("imagenet", root)
    options = {"space": PixelSpace.raw(), "preprocessing": data.Preprocessing(size=8), "workers": 0}
    used = []
    for source, train in ((images.train, True), (images.test, False)):
        loader = data.TorchvisionLoader(source, 2, train=train, **options)
        loader.on_bad_image = lambda bad: pytest.fail(str(bad))
        used.append(sorted(index for _ in loader.epoch(0) for index in loader.indices.tolist()))
    assert used == [[0, 0, 2, 2, 3, 4], [0, 1, 2, 3, 4]]  # 2 in the place of 1 too, 0 in that of 5, the last


def test_nothing_is_left(tmp_path: Path) -> None:
    for split in ("train", "val"):
        write_folder(tmp_path / split, {"all": list(damaged().values())})
    check(tmp_path)
    with pytest.raises(ValueError, match=f"{FILE} leaves out every image, such as .*000.JPEG: none of them decodes"):
        data.load("imagenet", tmp_path)


def test_other_files_are_counted(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """For instance, animations and notes in a collection."""
    for name in ("a.gif", "b.GIF", "notes.txt", "below/c.gif", "README", ".DS_Store"):
        (root / "train" / "class0" / name).parent.mkdir(exist_ok=True)
        (root / "train" / "class0" / name).write_bytes(b"GIF89a")
    check(root)
    counted = [line for line in capsys.readouterr().out.splitlines() if "by their names" in line]
    assert counted == [
        f"{root / 'train'}: 5 files left out that are not images by their names: 1 without an ending, 3 .gif, 1 .txt"
    ]


@pytest.mark.parametrize(("seconds", "rank", "lines"), [(0.5, "0", 1), (0.0, "0", 0), (0.5, "1", 0)])
def test_a_scan_that_takes_long_says_what_it_does(
    root: Path,
    seconds: float,
    rank: str,
    lines: int,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def slow(*_: Any) -> dict[str, data.ImageSource]:
        time.sleep(seconds)
        return {}

    monkeypatch.setattr(scan, "_scan", slow)
    monkeypatch.setattr(slow_work, "SLOW", 0.1)
    monkeypatch.setenv("RANK", rank)
    said = [f"listing the images in {root} ..."] * lines
    with caplog.at_level(logging.INFO, "fastadv"):
        data.scan(root)
    assert caplog.messages == said and capsys.readouterr().err == ""  # a program that uses the library prints itself
    with log_to_stderr():
        data.scan(root)
    assert capsys.readouterr().err.splitlines() == said


def test_several_workers_find_the_same(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each receives the file names once, not with each task: there may be a million."""
    sent: list[ImageFolder] = []
    reduced = ImageFolder.__reduce_ex__

    def and_count(source: ImageFolder, protocol: Any) -> Any:
        sent.append(source)
        return reduced(source, protocol)

    monkeypatch.setattr(ImageFolder, "__reduce_ex__", and_count)
    monkeypatch.setattr("fastadv.data.sources.check._FEW", 0)
    monkeypatch.setattr("fastadv.data.sources.check._CHUNK", 1)
    check(root)
    alone = (root / FILE).read_bytes()
    assert main(["data", "check", str(root), "--workers", "2"]) == 1
    assert (root / FILE).read_bytes() == alone
    assert len(sent) == 2 * 2  # of each of the two splits, to each of the two


class Deadly:
    """A source whose reader process dies as if memory had run out."""

    labels = torch.zeros(2, dtype=torch.int64)

    def __len__(self) -> int:
        return 2

    def read(self, index: int) -> bytes:
        os._exit(1)


def test_a_killed_worker_gives_one_line(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("fastadv.data.sources.check._FEW", 0)
    monkeypatch.setattr(data, "scan", lambda *_: {"train": Deadly(), "val": Deadly()})
    assert main(["data", "check", str(root), "--workers", "2"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("fastadv data check: a decoding process was killed") and not (root / FILE).exists()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_it_by_a_line(
    root: Path, number: int, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("fastadv.data.sources.check.reason_against", lambda content: os.kill(os.getpid(), number))
    assert check(root) == code
    assert capsys.readouterr().err.splitlines() == ["fastadv data check: interrupted; the same command starts over"]
    assert not (root / FILE).exists()


def test_a_good_set_of_all_kinds_is_good(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for split in ("train", "val"):
        write_folder(tmp_path / split, {"all": list(real_world().values())})
    assert check(tmp_path) == 0
    assert capsys.readouterr().out.startswith("0 of 42 images do not decode")
    assert len(data.load("imagenet", tmp_path).train) == 21


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
    named = "all/000.JPEG, all/001.JPEG, all/002.JPEG and 4 more"
    assert str(said[1].message).endswith(f"leaves out 7 of 8 val images ({named})")


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
    with pytest.raises(ValueError, match=f"{FILE} is stale: .*: run fastadv data check {root} again, or delete"):
        data.load("imagenet", root)
    check(root)
    with pytest.warns(UserWarning, match="leaves out"):
        data.load("imagenet", root)


def test_a_manifest_moves_with_its_data_set(root: Path) -> None:
    check(root)
    moved = root.with_name(root.name + " moved")
    root.rename(moved)
    with pytest.warns(UserWarning, match="leaves out"):
        assert len(data.load("imagenet", moved).train.left_out) == 2


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{}",
        "[" * 10**5,
        '{"format": 1, "splits": []}',
        '{"format": 0, "splits": {}}',
        '{"format": 1, "splits": {"train": {}}}',
    ],
)
def test_what_is_no_manifest_is_refused(root: Path, content: str) -> None:
    (root / FILE).write_text(content)
    with pytest.raises(ValueError, match=f"{FILE} is not a manifest of this version"):
        data.load("imagenet", root)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"index": 10**9}, "it leaves out image 1000000000 of 6"),
        ({"index": -1}, "it leaves out image -1 of 6"),
        ({"index": "0"}, "it leaves out image 0"),
        ({"key": "class0/000.JPEG"}, r"is stale: class0/000\.JPEG changed"),
        ({"index": 0}, r"is stale: class0/001\.JPEG changed"),
    ],
)
def test_a_manifest_leaves_out_what_it_names(root: Path, change: dict[str, Any], said: str) -> None:
    """As after editing it by hand: a wrong index, or one that does not exist."""
    check(root)
    content = json.loads((root / FILE).read_text())
    content["splits"]["train"]["left_out"][0].update(change)
    (root / FILE).write_text(json.dumps(content))
    with pytest.raises(ValueError, match=f"{FILE} .*{said}"):
        data.load("imagenet", root)


def test_a_manifest_of_other_splits_is_refused(root: Path) -> None:
    (root / FILE).write_text('{"format": 1, "splits": {}}')
    with pytest.raises(ValueError, match="is stale: it does not cover train and val"):
        data.load("imagenet", root)


def test_mistakes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(tmp_path / "absent") == 2
    said = capsys.readouterr().err
    assert said.startswith(f"fastadv data check: {tmp_path / 'absent'} is not a folder: expected one that holds train/")


@pytest.mark.parametrize(
    ("arguments", "command", "said"),
    [
        ([], "fastadv data", "required: COMMAND"),
        (["chek", "DIR"], "fastadv data", "must be one of check, got 'chek' (did you mean check?)"),
        (["check"], "fastadv data check", "required: DIR"),
        (["check", "DIR", "--worker", "2"], "fastadv data check", "--worker 2 (did you mean --workers?)"),
        (["check", "DIR", "--workers", "0"], "fastadv data check", "a whole number of at least 1 and at most 1024"),
        (["check", "DIR", "--workers", "2000"], "fastadv data check", "at least 1 and at most 1024, got '2000'"),
    ],
)
def test_mistakes_in_the_command(
    arguments: list[str], command: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        main(["data", *arguments])
    shown = capsys.readouterr().err
    assert left.value.code == 2 and shown.startswith(f"{command}: ") and said in shown


def test_a_read_only_folder_is_refused_before_decoding(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def read_only(**_: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    def decoded(content: bytes) -> None:
        raise AssertionError("an image was decoded")

    monkeypatch.setattr("fastadv.utils.files.tempfile.TemporaryFile", read_only)
    monkeypatch.setattr("fastadv.data.sources.check.reason_against", decoded)
    assert check(root) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"fastadv data check: cannot write to the folder {root}: Read-only file system. ")
    assert line.endswith("create a writable directory of symlinks to its contents and pass that, here and in training")


def test_a_folder_of_links_is_checked_and_used(root: Path, tmp_path: Path) -> None:
    links = tmp_path / "links"
    links.mkdir()
    for split in ("train", "val"):
        (links / split).symlink_to(root / split)
    assert check(links) == check(root)
    assert (links / FILE).read_text() == (root / FILE).read_text()


def test_a_manifest_that_cannot_be_written(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / FILE).mkdir()
    (root / FILE / "occupied").touch()
    assert check(root) == 1
    said = capsys.readouterr()
    assert FILE in said.err and len(said.out.splitlines()) == len(BAD)  # what was found is not lost


def test_help_says_what_a_newcomer_needs() -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "fastadv", "data", "check", "--help"], capture_output=True, text=True, check=True
    ).stdout
    for words in ("train/CLASS/IMAGE", FILE, ".gif", "exit codes:", "example:", "--workers"):
        assert words in shown
