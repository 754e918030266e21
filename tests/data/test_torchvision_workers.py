"""The processes of TorchvisionLoader: only their parent ends them."""

from __future__ import annotations

import multiprocessing
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from fastadv import data
from fastadv.data import Preprocessing, TorchvisionLoader
from fastadv.data.sources.folder import ImageFolder, scan_class_folders
from fastadv.pixels import PixelSpace
from tests.data.pictures import write_data_set


@dataclass(frozen=True, eq=False)
class Hanging(ImageFolder):
    """Files on a disk that stops responding after the first two."""

    def read(self, index: int) -> bytes:
        if index > 1:
            time.sleep(1000)
        return super().read(index)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_data_set(tmp_path, per_class=6, classes=2)
    return tmp_path / "train"


def create(source: data.ImageSource, workers: int) -> TorchvisionLoader:
    options = {"preprocessing": Preprocessing(size=8), "workers": workers, "prefetch": 1}
    return TorchvisionLoader(source, 2, space=PixelSpace.raw(), train=False, **options)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_from_elsewhere_changes_nothing(number: signal.Signals, folder: Path) -> None:
    """torchrun and terminals send signals to every process of a run, which still has to finish an iteration."""
    source = scan_class_folders(folder)
    expected = [images for images, _ in create(source, 0).epoch(0)]
    batches = create(source, 2).epoch(0)
    found = [next(batches)[0]]
    pids = [str(worker.pid) for worker in multiprocessing.active_children()]
    assert len(pids) == 2
    subprocess.run(["sh", "-c", f"kill -{int(number)} {' '.join(pids)}"], check=True)
    found += [images for images, _ in batches]
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    assert multiprocessing.active_children() == []


def test_the_parent_ends_one_that_hangs(folder: Path) -> None:
    """As DataLoader does with workers that do not end."""
    source = scan_class_folders(folder)
    batches = create(Hanging(source.root, source.paths, source.labels, source.classes), 1).epoch(0)
    next(batches)
    (worker,) = multiprocessing.active_children()
    worker.terminate()
    worker.join(20)
    code = worker.exitcode
    worker.kill()  # or these tests would wait for it at their end
    assert code == 0
