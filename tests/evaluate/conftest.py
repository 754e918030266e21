from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from fastadv.evaluate import Record


@pytest.fixture
def make_record() -> Callable[..., Record]:
    """Records of 1,000 of 10,000 images; what is not given is the same in all of them."""

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
        return Record(model=model, attack=attack, eps=eps, top1=top1, top5=top5, **{**constant, **given})

    return make
