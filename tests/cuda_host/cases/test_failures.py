"""Failing calls: an error with the operator's name and CUDA's text, no further calls, and a next call that works."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from fastadv import ops
from tests.cuda_host import calls
from tests.cuda_host.calls import FASTADV
from tests.cuda_host.cases.table import DEVICE, OPERATORS, RESULT, SO_FAR, New, operator

INVALID_VALUE, OUT_OF_MEMORY, INSUFFICIENT_DRIVER, NO_KERNEL_IMAGE, ILLEGAL_ADDRESS = 1, 2, 35, 209, 700
WORDS = {"invalid argument": INVALID_VALUE, "illegal memory access": ILLEGAL_ADDRESS}
EXCEPTIONS = {
    INVALID_VALUE: (RuntimeError, r"invalid argument \(cudaErrorInvalidValue\)"),
    OUT_OF_MEMORY: (torch.OutOfMemoryError, "the GPU has no memory left to launch the kernel"),
    ILLEGAL_ADDRESS: (RuntimeError, r"not run, because work that was launched earlier.*cudaErrorIllegalAddress"),
}
# Before that PyTorch writes the reason for an error of its own to stderr, and raises one without it.
TELLS_WHY = tuple(map(int, torch.__version__.split(".")[:2])) >= (2, 13)
# Every call of every operator but those that ask for an error: (operator, function, how many of it came before).
EACH_CALL = [
    (name, function, sequence[:position].count(function))
    for name, sequence in (
        (name, ["__cudaLaunchKernel" if " x " in one else one for one in expected])
        for name, (_, expected) in OPERATORS.items()
    )
    for position, function in enumerate(sequence)
    if function not in (RESULT, SO_FAR)
]


def raises(name: str, error: int) -> pytest.RaisesExc[Exception]:
    exception, words = EXCEPTIONS[error]
    return pytest.raises(exception, match=rf"^fastadv\.{operator(name)}: .*{words}")


def launched() -> list[str]:
    return [call.kernel for call in calls.recorded(FASTADV) if call.launches]


@pytest.mark.parametrize("error", EXCEPTIONS)
@pytest.mark.parametrize(("name", "function", "before"), EACH_CALL, ids=str)
def test_a_call_that_fails(name: str, function: str, before: int, error: int) -> None:
    """A call fails once: the error names the operator, no step uses a norm that was not computed, and a retry works."""
    make, expected = OPERATORS[name]
    call = make(New(0))
    calls.clear()
    calls.fail(function, error, before + 1)
    with raises(name, error):
        call()
    if function == DEVICE and before == 0:
        assert not launched()
    elif SO_FAR in expected and function == "__cudaLaunchKernel":
        steps = [kernel for kernel in launched() if kernel.startswith("step_kernel")]
        assert not steps or len(launched()) == before + 1  # it is the step itself that failed
    calls.clear()
    call()
    assert list(map(str, calls.recorded(FASTADV))) == expected


# Those that PyTorch allocates for before the operator is called, and fails in its own words.
ALLOCATED_BEFORE = ("from_pixels", "from_pixels, many channels", "sample_eps")


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("spared", ["", DEVICE], ids=["", "but for the question for the device"])
def test_earlier_work_broke_the_device(name: str, spared: str) -> None:
    make, expected = OPERATORS[name]
    call = make(New(0))
    call()  # after which PyTorch has the memory of its results
    calls.clear()
    calls.break_device(ILLEGAL_ADDRESS, spared)
    if spared and not any(" x " in one for one in expected):
        call()  # nothing to do
    elif name in ALLOCATED_BEFORE and not spared:
        told = name != "sample_eps" or TELLS_WHY
        with pytest.raises(RuntimeError, match="CUDA error: an illegal memory access" if told else "aten::empty"):
            call()
    else:
        with raises(name, ILLEGAL_ADDRESS):
            call()
    assert not launched() or spared


def switches_device(name: str) -> tuple[Callable[[], object], int]:
    """The operator on the second device while the first is current, and how often the current device is changed."""
    call = OPERATORS[name][0](New(1))
    call()
    calls.clear()
    call()
    switched = sum(one.function == "cudaSetDevice" for one in calls.recorded())
    calls.clear()
    return call, switched


@pytest.mark.parametrize("error", ["invalid argument", "illegal memory access"])
@pytest.mark.parametrize("name", OPERATORS)
def test_the_device_cannot_be_made_current(name: str, error: str) -> None:
    """The launch's device guard fails: nothing is launched, and the current device is the same as before."""
    call, switched = switches_device(name)
    calls.fail("cudaSetDevice", WORDS[error], nth=switched - 1, library="libc10_cuda")  # the last one switches back
    reason = error if TELLS_WHY else "aoti_torch_create_device_guard"
    with pytest.raises(RuntimeError, match=rf"^fastadv\.{operator(name)}: cuda:1 cannot be made current: .*{reason}"):
        call()
    assert not launched() and torch.cuda.current_device() == 0


@pytest.mark.filterwarnings("ignore:CUDA warning")  # which PyTorch 2.11 writes to stderr
@pytest.mark.parametrize("name", OPERATORS)
def test_the_device_of_before_cannot_be_made_current(name: str) -> None:
    """PyTorch warns in a destructor, and the process continues."""
    call, switched = switches_device(name)
    calls.fail("cudaSetDevice", INVALID_VALUE, nth=switched, library="libc10_cuda")
    call()
    assert torch.cuda.current_device() == 1


def test_no_memory_for_a_result() -> None:
    """The logits already take half of the address space."""
    logits = New(0)(2**20, 2**25, dtype=torch.float16)
    with pytest.raises(torch.OutOfMemoryError, match="no memory for a result or a workspace"):
        ops.target_grad(logits, "predicted")
    assert not launched()


def test_a_gpu_without_kernels() -> None:
    new = New(0)
    calls.fail("__cudaLaunchKernel", NO_KERNEL_IMAGE)
    gpu = r"no kernel was compiled for this GPU \(Recorded GPU 0, compute capability 9\.0\); compiled are 80-virtual"
    advice = "Rebuild with FASTADV_CUDA_ARCHS=90"
    with pytest.raises(RuntimeError, match=rf"^fastadv\.truncated_normal_: {gpu}\. {advice}"):
        ops.truncated_normal_(new(4), seed=1)


def test_a_driver_that_is_too_old() -> None:
    eps = New(0)(4)
    calls.fail("cudaGetDevice", INSUFFICIENT_DRIVER)
    versions = r"fastadv was built with CUDA 13\.\d, and the NVIDIA driver here supports no more than 13\.\d"
    with pytest.raises(RuntimeError, match=rf"^fastadv\.truncated_normal_: {versions}"):
        ops.truncated_normal_(eps, seed=1)
    assert not launched()
