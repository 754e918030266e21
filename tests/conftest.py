from __future__ import annotations

import os

import pytest
import torch


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a GPU where there is none, except for tests/gpu in a rehearsal on the CPU."""
    if torch.cuda.is_available():
        return
    rehearsal = os.environ.get("FASTADV_TEST_DEVICE") == "cpu"
    for item in items:
        if item.get_closest_marker("gpu") and not (rehearsal and item.path.parent.name == "gpu"):
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
