"""The loaders to test with; DALI's is skipped if it is not installed."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

import pytest

from fastadv.data import DaliLoader, TorchvisionLoader

LOADERS = {"dali": DaliLoader, "torchvision": TorchvisionLoader}


def _installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # the package that it is in
        return False


needs_dali = pytest.mark.skipif(not _installed("nvidia.dali"), reason="needs DALI: pip install 'fastadv[dali]'")


def each(argument: str, kinds: Mapping[str, Any] = LOADERS) -> pytest.MarkDecorator:
    """Run the test once for each kind of loader."""
    marks = {name: [needs_dali] if name.startswith("dali") else [] for name in kinds}
    return pytest.mark.parametrize(
        argument, [pytest.param(kind, id=name, marks=marks[name]) for name, kind in kinds.items()]
    )
