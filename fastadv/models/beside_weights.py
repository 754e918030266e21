"""Safe stand-ins for what training scripts save next to weights and ``torch.load`` refuses: argparse and NumPy objects.

NumPy's own functions would trust a pickle's description of an array's memory. The stand-ins check it.
"""

from __future__ import annotations

import argparse
import re
from typing import Any

import numpy as np

_NUMBER_OR_TEXT = re.compile(r"[biufcSU]\d+")


class _DType:
    """Stands in for ``numpy.dtype``."""

    def __init__(self, code: object = "", *_: object) -> None:
        self.code = code if isinstance(code, str) and _NUMBER_OR_TEXT.fullmatch(code) else None
        self.order = "="

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, tuple) and state[1:2] in (("<",), (">",)):
            self.order = state[1]


class _Unread:
    """Stands in for ``numpy.ndarray``: arrays next to the weights are not needed."""

    def __init__(self, *_: object) -> None: ...

    def __setstate__(self, state: object) -> None: ...


def _scalar(dtype: object, data: object = b"") -> Any:
    """Stands in for NumPy's scalar constructor; returns None for anything but numbers and text."""
    if not isinstance(dtype, _DType) or dtype.code is None or not isinstance(data, bytes):
        return None
    kind = np.dtype(dtype.order + dtype.code)
    return np.frombuffer(data, kind)[0].item() if len(data) == kind.itemsize > 0 else None


def safe_globals() -> list[Any]:
    """Return the classes and functions to pass to ``torch.serialization.safe_globals``."""
    by_name: dict[str, Any] = {"numpy.dtype": _DType, "numpy.ndarray": _Unread}
    for core in ("numpy.core.multiarray", "numpy._core.multiarray"):  # before NumPy 2, and since
        by_name |= {f"{core}.scalar": _scalar, f"{core}._reconstruct": _Unread}
    return [argparse.Namespace, *((stand_in, name) for name, stand_in in by_name.items())]
