"""The recorder refuses what CUDA refuses, and fails when told to; otherwise the other tests would show nothing."""

from __future__ import annotations

import ctypes
import signal
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch

from tests.cuda_host import calls

runtime = ctypes.CDLL("librecorder.so")
UNSUPPORTED, INVALID_VALUE, ILLEGAL_ADDRESS = 900, 1, 700


def recorded_event() -> torch.cuda.Event:
    event = torch.cuda.Event()
    event.record()
    return event


def fill_on_the_default_stream() -> None:
    with torch.cuda.stream(torch.cuda.default_stream()):
        torch.empty(4, device="cuda").zero_()


pytestmark = pytest.mark.filterwarnings("ignore:The CUDA Graph is empty")


@pytest.mark.parametrize(
    ("function", "call"),
    [
        ("cudaDeviceSynchronize", torch.cuda.synchronize),
        ("cudaStreamSynchronize", lambda: torch.cuda.current_stream().synchronize()),
        ("cudaStreamQuery", lambda: torch.cuda.current_stream().query()),
        ("cudaEventQuery", lambda: recorded_event().query()),
        ("cudaEventSynchronize", lambda: recorded_event().synchronize()),
        ("cudaMemsetAsync", fill_on_the_default_stream),
    ],
)
def test_what_a_capture_forbids(function: str, call: Callable[[], object]) -> None:
    """The call is refused, and the capture is invalid from then on."""
    with pytest.raises(RuntimeError, match="previous error during capture"), torch.cuda.graph(torch.cuda.CUDAGraph()):
        calls.clear()
        with pytest.raises(RuntimeError, match="captur"):
            call()
        assert function in [one.function for one in calls.recorded()]


def test_an_allocation_in_a_capture() -> None:
    """Refused unless the thread has relaxed its capture mode, as the caching allocator does."""
    memory = ctypes.c_void_p()
    with pytest.raises(RuntimeError, match="previous error during capture"), torch.cuda.graph(torch.cuda.CUDAGraph()):
        torch.empty(2**30, device="cuda")
        assert "cudaMalloc" in [call.function for call in calls.recorded()]
        assert runtime.cudaMalloc(ctypes.byref(memory), ctypes.c_size_t(64)) == UNSUPPORTED


def test_the_host_reads_no_memory_of_a_device() -> None:
    code = """
import ctypes
runtime, memory = ctypes.CDLL("librecorder.so"), ctypes.c_void_p()
assert runtime.cudaMalloc(ctypes.byref(memory), ctypes.c_size_t(64)) == 0
print("allocated", flush=True)
ctypes.string_at(memory, 1)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "allocated\n" and done.returncode == -signal.SIGSEGV


def test_the_nth_call_fails_once() -> None:
    calls.fail("cudaMalloc", INVALID_VALUE, nth=2, library="")
    memory = ctypes.c_void_p()
    results = [runtime.cudaMalloc(ctypes.byref(memory), ctypes.c_size_t(64)) for _ in range(3)]
    assert results == [0, INVALID_VALUE, 0]
    assert [runtime.cudaGetLastError() for _ in range(2)] == [INVALID_VALUE, 0]


def test_a_broken_device_answers_nothing_else() -> None:
    device = ctypes.c_int()
    calls.break_device(ILLEGAL_ADDRESS, spared="cudaGetDevice")
    assert runtime.cudaGetDevice(ctypes.byref(device)) == 0
    assert [runtime.cudaDeviceSynchronize() for _ in range(2)] == [ILLEGAL_ADDRESS] * 2
    assert [runtime.cudaGetLastError() for _ in range(2)] == [ILLEGAL_ADDRESS] * 2
    with pytest.raises(RuntimeError, match="illegal memory access"):
        torch.cuda.synchronize()


def test_an_error_is_its_librarys_own() -> None:
    """As with a statically linked runtime, such as fastadv's."""
    calls.fail("cudaDeviceSynchronize", INVALID_VALUE, library="")
    assert runtime.cudaDeviceSynchronize() == INVALID_VALUE
    torch.empty(4, device="cuda").zero_()  # checks its own last error
    assert runtime.cudaGetLastError() == INVALID_VALUE
