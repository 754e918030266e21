"""Processes forked from one with DALI pipelines can end."""

from __future__ import annotations

import gc
import multiprocessing
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fastadv import data
from fastadv.pixels import PixelSpace
from tests.data.loaders import needs_dali
from tests.data.pictures import write_data_set


def ends(work: Callable[[], None], timeout: float) -> bool:
    """Whether a forked process that does hardly any work ends within some seconds."""
    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    process.join(timeout)
    ended = process.exitcode == 0
    process.kill()
    process.join()
    return ended


@needs_dali
@pytest.mark.parametrize("generations", [1, 2])
def test_a_forked_process_may_collect_pipelines_as_garbage(generations: int, tmp_path: Path) -> None:
    """As workers of a DataLoader do at some point, for an epoch that was not iterated to its end."""
    write_data_set(tmp_path, per_class=8, classes=2)
    source = data.scan(tmp_path)["train"]
    options = {"space": PixelSpace.unit(), "train": True, "preprocessing": data.Preprocessing(size=8), "workers": 1}
    begun = [data.DaliLoader(source, 2, **options).epoch(0)]
    next(begun[0])
    time.sleep(0.5)  # until DALI's threads wait for work: nobody can wake them in another process

    def collect() -> None:
        begun.clear()
        gc.collect()

    def collect_in_another() -> None:
        assert ends(collect, timeout=20)
        collect()

    assert ends(collect if generations == 1 else collect_in_another, timeout=60)
    assert sum(1 for _ in begun[0]) == 7  # nothing happened to the one here
