"""Images that cannot be used are named and replaced by a fixed rule: no hangs, and none dropped silently."""

from __future__ import annotations

import os
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from fastadv import data
from fastadv.data import BadImageWarning, DaliLoader, ImageLoader, Preprocessing, TorchvisionLoader
from fastadv.data.loaders.bad_images import TooManyBadImages, find_replacement
from fastadv.pixels import PixelSpace
from tests.data.loaders import each, needs_dali
from tests.data.pictures import damaged, jpeg, write_data_set, write_folder

each_loader = each("kind")
PER_CLASS = 6


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Twelve images per split: 000 to 005 of class0 have the indices 0 to 5."""
    write_data_set(tmp_path, per_class=PER_CLASS, classes=2)
    return tmp_path


def spoil(root: Path, contents: dict[int, bytes], split: str = "train") -> None:
    for index, content in contents.items():
        (root / split / f"class{index // PER_CLASS}" / f"{index % PER_CLASS:03}.JPEG").write_bytes(content)


def create(kind: type[ImageLoader], root: Path, batch_size: int = 4, train: bool = True, **options: Any) -> ImageLoader:
    source = data.scan(root)["train" if train else "val"]
    whole = Preprocessing(size=16, least_area=1.0)  # DALI looks no further than the window
    usual = {"space": PixelSpace.raw(), "preprocessing": whole, "workers": kind is DaliLoader}
    return kind(source, batch_size, train=train, **{**usual, **options})


def run(loader: ImageLoader, epoch: int = 0, start: int = 0) -> tuple[list[list[int]], list[str]]:
    """Indices of each batch, and the warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", BadImageWarning)
        indices = []
        for images, labels in loader.epoch(epoch, start):
            assert len(images) == len(labels) == len(loader.indices)
            assert labels.tolist() == loader.source.labels[loader.indices].tolist()
            indices.append(loader.indices.tolist())
    return indices, [str(warning.message) for warning in caught if warning.category is BadImageWarning]


@pytest.mark.parametrize("content", damaged().values(), ids=damaged())
@each_loader
def test_a_bad_file_is_named_and_the_next_takes_its_place(kind: type[ImageLoader], content: bytes, root: Path) -> None:
    asked, _ = run(create(kind, root))
    spoil(root, {5: content})
    got, said = run(create(kind, root))
    assert got == [[6 if index == 5 else index for index in batch] for batch in asked]
    path, next_path = root / "train" / "class0" / "005.JPEG", root / "train" / "class1" / "000.JPEG"
    (line,) = said
    assert line.startswith(f"{path} cannot be used (") and f"): replaced by {next_path}." in line
    reason = line.partition("(")[2].partition("): ")[0]
    assert reason and "0x" not in reason


@each_loader
def test_the_replacement_comes_with_its_own_label_and_window(kind: type[ImageLoader], root: Path) -> None:
    cut = Preprocessing(size=16)
    whole = create(kind, root, 12, preprocessing=cut)
    ((before, _),) = whole.epoch(0)
    of_six = before[whole.indices == 6][0]
    spoil(root, {5: b"not an image"})
    loader = create(kind, root, 12, preprocessing=cut)
    with pytest.warns(BadImageWarning):
        ((after, labels),) = loader.epoch(0)
    rows = (loader.indices == 6).nonzero().flatten()
    assert len(rows) == 2
    assert all(torch.equal(after[row], of_six) and labels[row] == 1 for row in rows)


@each_loader
def test_several_bad_files_wrap_around_to_the_first(kind: type[ImageLoader], root: Path) -> None:
    asked, _ = run(create(kind, root), epoch=1)
    half = jpeg(64, 64)[:600]
    spoil(root, {2: b"", 3: half, 11: half})
    for _ in range(2):
        got, said = run(create(kind, root), epoch=1)
        assert got == [[{2: 4, 3: 4, 11: 0}.get(index, index) for index in batch] for batch in asked]
        names = sorted(line.partition(" cannot")[0].rpartition("train/")[2] for line in said)
        assert names == ["class0/002.JPEG", "class0/003.JPEG", "class0/003.JPEG", "class1/005.JPEG"]  # 2's way and 3's
    for start in (1, 2):
        assert run(create(kind, root), epoch=1, start=start)[0] == got[start:]


@each_loader
def test_each_epoch_says_it_again_with_the_batch_that_it_is_in(kind: type[ImageLoader], root: Path) -> None:
    spoil(root, {7: b"not an image"})
    loader = create(kind, root)
    told: list[str] = []
    loader.on_bad_image = lambda bad: told.append(bad.name)
    for epoch in range(2):
        order = [indices.tolist() for indices in loader.batches.of_epoch(epoch)]
        for batch, _ in enumerate(loader.epoch(epoch)):
            assert len(told) == epoch + (7 in sum(order[: batch + 1], []))  # noqa: RUF017
    assert told == [str(root / "train" / "class1" / "001.JPEG")] * 2


@each_loader
def test_a_file_that_vanishes(kind: type[ImageLoader], root: Path) -> None:
    loader = create(kind, root)
    (root / "train" / "class0" / "000.JPEG").unlink()
    got, said = run(loader)
    assert sorted(sum(got, [])) == [1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]  # noqa: RUF017
    assert len(said) == 1 and "No such file" in said[0]


@each_loader
def test_evaluation_leaves_a_place_empty(kind: type[ImageLoader], root: Path) -> None:
    spoil(root, {0: b"", 1: b"x", 2: jpeg(64, 64)[:600], 3: b"x", 6: b"x", 11: b"x"}, split="val")
    got, said = run(create(kind, root, train=False))
    assert got == [[4, 5, 7], [8, 9, 10]]  # the first batch has no image left
    assert len(said) == 6 and all("): left out." in line for line in said)


@each_loader
def test_evaluation_that_ends_with_an_empty_batch_still_names_it(kind: type[ImageLoader], root: Path) -> None:
    spoil(root, dict.fromkeys(range(8, 12), b""), split="val")
    got, said = run(create(kind, root, train=False))
    assert got == [[0, 1, 2, 3], [4, 5, 6, 7]] and len(said) == 4


@each_loader
def test_a_data_set_without_one_usable_image_is_an_error(kind: type[ImageLoader], root: Path) -> None:
    spoil(root, dict.fromkeys(range(12), jpeg(64, 64)[:600]))
    said = r"^12 images in a row cannot be used, from .*JPEG \(Truncated.*\) to .*JPEG \(Truncated.*\): .* data check"
    with pytest.raises(OSError, match=said):
        run(create(kind, root))


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("split", ["train", "val"])
@each_loader
def test_a_folder_that_vanishes_is_not_searched_to_its_end(
    kind: type[ImageLoader], split: str, workers: int, tmp_path: Path
) -> None:
    """It may be unmounted: otherwise a million files would be tried for each image."""
    for name in ("train", "val"):
        write_folder(tmp_path / name, {"all": [b"x"] * (300 if name == split else 1)})
    loader = create(kind, tmp_path, 64, train=split == "train", workers=workers - (kind is TorchvisionLoader))
    (tmp_path / split).rename(tmp_path / "elsewhere")
    with pytest.raises(OSError, match=r"^256 images in a row .*No such file") as error:
        run(loader)
    assert "\n" not in str(error.value)


def test_workers_name_bad_files_too(root: Path) -> None:
    spoil(root, {3: b"x", 8: b""})
    loader = create(TorchvisionLoader, root, workers=2)
    got, said = run(loader)
    assert got == run(create(TorchvisionLoader, root))[0] and len(said) == 2


@needs_dali
@pytest.mark.parametrize(
    ("content", "sought"),
    [
        (b"not an image", [0, 0]),  # of no format that DALI gets
        (b"\xff\xd8\xff", [1, 0]),
        (damaged()["half"], [1, 1]),  # of another epoch's window DALI may know
    ],
    ids=["no image", "no more than a beginning", "half"],
)
def test_what_dali_decodes_no_window_of_is_sought_once(
    content: bytes, sought: list[int], root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(root, {4: content})
    loader, reasons, counts = create(DaliLoader, root), DaliLoader._reasons, []

    def counted(self: DaliLoader, *arguments: Any) -> dict[int, str]:
        counts[-1] += 1
        return reasons(self, *arguments)

    monkeypatch.setattr(DaliLoader, "_reasons", counted)
    said = []
    for epoch in range(2):
        counts.append(0)
        said.append(run(loader, epoch)[1])
    assert counts == sought and said[0] == said[1] and len(said[0]) == 1


@needs_dali
def test_a_failure_that_is_of_no_image_is_not_hidden(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def run(self, stream: object) -> None:
            next(self.feed)
            raise RuntimeError("out of memory")

        def __init__(self, feed: Any) -> None:
            self.feed = feed

    loader, real = create(DaliLoader, root), DaliLoader._pipeline
    monkeypatch.setattr(
        DaliLoader, "_pipeline", lambda self, feed, size: Broken(feed) if size == 4 else real(self, feed, size)
    )
    with pytest.raises(RuntimeError, match="decodes each image of the batch: out of memory"):
        next(iter(loader.epoch(0)))


def test_a_worker_that_is_killed_ends_the_run(root: Path) -> None:
    class Deadly:
        """A source whose reader process dies as if memory had run out."""

        def __init__(self, source: data.ImageSource) -> None:
            self.source = source
            self.classes, self.labels, self.left_out = source.classes, source.labels, source.left_out

        def __len__(self) -> int:
            return len(self.source)

        def read(self, index: int) -> bytes:
            os._exit(1)

    loader = create(TorchvisionLoader, root, workers=1)
    loader.source = Deadly(loader.source)
    with pytest.raises(RuntimeError, match="worker"):
        list(loader.epoch(0))


def test_candidates_are_tried_256_at_most() -> None:
    class Million:
        left_out = frozenset(range(10))  # not tried

        def __len__(self) -> int:
            return 10**6

        def name(self, index: int) -> str:
            return str(index)

    tried: list[int] = []

    def gone(index: int) -> str:
        tried.append(index)
        return "gone"

    said = r"^256 images in a row cannot be used, from 999900 \(gone\) to 165 \(gone\): "
    with pytest.raises(TooManyBadImages, match=said):
        find_replacement(Million(), 999_900, True, gone)
    assert tried == [*range(999_900, 1_000_000), *range(10, 166)]
    tried.clear()
    index, bad = find_replacement(Million(), 500, True, lambda index: gone(index) if index < 755 else None)
    assert index == 755 and len(bad) == len(tried) == 255


def test_the_rule_by_hand(root: Path) -> None:
    source = data.scan(root)["train"]
    against = {3: "cut off", 4: "no image", 11: "empty"}.get
    assert find_replacement(source, 0, True, against) == (0, [])
    index, bad = find_replacement(source, 3, True, against)
    assert index == 5
    assert [(one.name, one.reason, one.replacement) for one in bad] == [
        (source.name(3), "cut off", source.name(5)),
        (source.name(4), "no image", source.name(5)),
    ]
    assert find_replacement(source, 11, True, against)[0] == 0
    assert find_replacement(replace(source, left_out=frozenset({2, 5})), 2, True, against) == (
        6,
        [replace(one, replacement=source.name(6)) for one in find_replacement(source, 3, True, against)[1]],
    )
    assert find_replacement(replace(source, left_out=frozenset({2})), 2, False, against) == (None, [])
    index, bad = find_replacement(source, 3, False, against)
    assert index is None and [(one.name, one.replacement) for one in bad] == [(source.name(3), None)]
