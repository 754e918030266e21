"""Having PyTorch's autograd run backward passes on a GPU whose driver is not there."""

from __future__ import annotations

import ctypes
import re
from functools import cache
from pathlib import Path

import torch

_LIB = Path(torch.__file__).parent / "lib"
_HEADER = Path(torch.__file__).parent / "include" / "ATen" / "detail" / "AcceleratorHooksInterface.h"
_SLOTS = 256  # of a table of virtual functions: more than any of PyTorch's hooks has


@cache
def let_autograd_believe() -> None:
    """For the rest of the process.

    PyTorch's own switch for fake tensors makes the guards of CUDA devices do nothing. What is left is a question that
    autograd asks the hooks of the back end, and they the driver: whether the device is in use, and so has streams that
    must be waited for. It is answered in their place, by no.
    """
    torch._C._ensureCUDADeviceGuardSet()
    get_hooks = ctypes.CDLL(str(_LIB / "libtorch_cpu.so"))["_ZN2at6detail12getCUDAHooksEv"]
    get_hooks.restype = ctypes.c_void_p
    hooks = ctypes.cast(get_hooks(), ctypes.POINTER(ctypes.c_void_p))
    # Two words before the functions say what the object is.
    before = hooks[0] - 2 * ctypes.sizeof(ctypes.c_void_p)
    table = (ctypes.c_void_p * _SLOTS).from_buffer_copy(
        ctypes.string_at(before, ctypes.sizeof(ctypes.c_void_p * _SLOTS))
    )
    table[2 + _slot("hasPrimaryContext")] = ctypes.cast(_NO, ctypes.c_void_p).value
    hooks[0] = ctypes.addressof(table) + 2 * ctypes.sizeof(ctypes.c_void_p)
    for kept in (table, _NO):  # beyond the interpreter's end, at which the hooks are used once more
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(kept))


_NO = ctypes.CFUNCTYPE(ctypes.c_bool, ctypes.c_void_p, ctypes.c_int8)(lambda hooks, device: False)


def _slot(function: str) -> int:
    """Where a function stands among the virtual ones of its class; a destructor takes two places."""
    names = re.findall(r"virtual\s+[^;{()]*?(~?\w+)\(", _HEADER.read_text())
    return names.index(function) + sum(name.startswith("~") for name in names[: names.index(function)])
