"""The recorder, from Python: reads the calls, and makes calls fail."""

from __future__ import annotations

import ctypes
import re
from dataclasses import dataclass

FASTADV = "_C"  # the library whose calls are the package's own

_recorder = ctypes.CDLL("librecorder.so")
_recorder.recorder_calls.restype = ctypes.c_char_p
_recorder.recorder_fail.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_int]
_recorder.recorder_break.argtypes = [ctypes.c_int, ctypes.c_char_p]
_NAMESPACES = re.compile(r"fastadv::|cuda::|\(anonymous namespace\)::")


@dataclass(frozen=True)
class Call:
    """A call of a function of the CUDA runtime.

    Attributes:
        library: the file that called, up to its first dot: ``_C``, ``libtorch_cuda``.
        device: the thread's current device.
        details: what the function was given, as the recorder writes it.
    """

    library: str
    function: str
    device: int
    details: tuple[str, ...]

    @property
    def launches(self) -> bool:
        return "LaunchKernel" in self.function

    @property
    def kernel(self) -> str:
        """The kernel's name and template arguments."""
        return _kernel(self.details[0])

    @property
    def grid(self) -> tuple[int, ...]:
        return tuple(map(int, self.details[1].split(",")))

    @property
    def block(self) -> tuple[int, ...]:
        return tuple(map(int, self.details[2].split(",")))

    @property
    def stream(self) -> int:
        return int(self.details[4])

    def __str__(self) -> str:
        return f"{self.kernel} x {self.grid[0]}" if self.launches else self.function


def clear() -> None:
    """Forget the calls so far."""
    _recorder.recorder_clear()


def heal() -> None:
    """Cancel all failures and clear their errors."""
    _recorder.recorder_heal()


def recorded(library: str | None = None) -> list[Call]:
    """The calls since they were last cleared, by one library or by all."""
    lines = (line.split("\t") for line in _recorder.recorder_calls().decode().splitlines())
    calls = [Call(library, function, int(device), tuple(details)) for library, function, device, *details in lines]
    return [call for call in calls if library in (None, call.library)]


def fail(function: str, error: int, nth: int = 1, library: str = FASTADV) -> None:
    """Make the n-th call of this function by a library return the error; an empty name is any library."""
    _recorder.recorder_fail(library.encode(), function.encode(), nth, error)


def break_device(error: int, spared: str = "") -> None:
    """Make every call return the error, as after an illegal access, except those of the function ``spared``."""
    _recorder.recorder_break(error, spared.encode())


def _kernel(signature: str) -> str:
    """``void fastadv::cuda::step_kernel<float, 4>(...)`` as ``step_kernel<float, 4>``."""
    name = _NAMESPACES.sub("", signature).removeprefix("void ").replace("> >", ">>")
    depth = 0
    for i, letter in enumerate(name):
        depth += (letter == "<") - (letter == ">")
        if letter == "(" and depth == 0:
            return name[:i]
    return name
