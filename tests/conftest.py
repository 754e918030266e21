from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

from fastadv import attacks
from fastadv.evaluate import Record
from fastadv.evaluate.records import packed


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Slow files come first, for processes that share the files.

    What needs a GPU is skipped where there is none, except for tests/gpu in a rehearsal on the CPU.
    """
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)
    if torch.cuda.is_available():
        return
    rehearsal = os.environ.get("FASTADV_TEST_DEVICE") == "cpu"
    for item in items:
        if item.get_closest_marker("gpu") and not (rehearsal and item.path.parent.name == "gpu"):
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


# Attacks of hundreds of steps, or thousands of queries, have so many by default in the tests: (class, option, number).
FEW_STEPS = [
    *((attacks.AdaptivePGD, "steps", 5), (attacks.FAB.__base__, "steps", 3), (attacks.Square, "queries", 12)),
    *((attacks.AutoAttack, "steps", 3), (attacks.AutoAttack, "queries", 12)),
]


@pytest.fixture(scope="session", autouse=True)
def few_steps() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for kind, option, number in FEW_STEPS:
            patch.setitem(kind.__init__.__kwdefaults__, option, number)
        yield


@pytest.fixture
def make_record() -> Callable[..., Record]:
    """Records of 1,000 of 10,000 images, the first ``top1`` correct; what is not given is the same in all of them."""

    def make(model: str, attack: str, eps: float, top1: int, top5: int | None = None, **given: Any) -> Record:
        constant = {
            "checkpoint": model,
            "space": "unit",
            "dataset": "fashion_mnist",
            "split": "test",
            "images": "abc",
            "n": 1000,
            "total": 10_000,
            "classes": 10,
            "options": {},
            "seed": 0,
            "seconds": 1.5,
            "device": "cpu",
            "versions": {"fastadv": "0.1.0"},
        }
        values = {**constant, **given}
        values.setdefault("correct", packed(np.arange(values["n"]) < top1))
        return Record(model=model, attack=attack, eps=eps, top1=top1, top5=top5, **values)

    return make
