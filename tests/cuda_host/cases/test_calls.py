"""The CUDA runtime calls of an operator: their order, grids, streams and devices, also in a graph."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from fastadv import ops
from tests.completeness import check_complete, operators
from tests.cuda_host import calls
from tests.cuda_host.calls import FASTADV, Call
from tests.cuda_host.cases.table import OPERATORS, New, launch_begins

each_operator = pytest.mark.parametrize(("make", "expected"), OPERATORS.values(), ids=OPERATORS)
Make = Callable[[New], Callable[[], object]]


def test_the_table_has_every_operator() -> None:
    """from_pixels allocates its result, which from_pixels_ fills."""
    stems = {name.partition(",")[0] for name in OPERATORS}
    check_complete(
        "OPERATORS of tests/cuda_host/cases/table.py", stems, operators() - {"from_pixels_"} | {"from_pixels"}
    )


def made(make: Make, expected: list[str], device: int = 0) -> list[Call]:
    """Check the package's own calls, and return all calls from the launcher's cudaGetDevice on."""
    call = make(New(device))
    calls.clear()
    call()
    everything = calls.recorded()
    assert list(map(str, own(everything))) == expected
    positions = [i for i, one in enumerate(everything) if one.library == FASTADV]
    return everything[positions[launch_begins(expected)] :]


def own(everything: list[Call]) -> list[Call]:
    return [call for call in everything if call.library == FASTADV]


def check_launches(everything: list[Call], stream: int, device: int = 0) -> None:
    """Check that all launches are on this stream and device, with 256 threads per block, one dimension and no dynamic
    shared memory.
    """
    for call in filter(lambda call: call.launches, own(everything)):
        assert (call.stream, call.device) == (stream, device), call
        assert call.grid[1:] == (1, 1) and call.block == (256, 1, 1) and call.details[3] == "0", call


@each_operator
def test_on_the_default_stream(make: Make, expected: list[str]) -> None:
    everything = made(make, expected)
    assert own(everything) == everything  # PyTorch itself calls nothing in between or afterwards
    check_launches(everything, stream=0)


@each_operator
def test_on_the_current_stream(make: Make, expected: list[str]) -> None:
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        everything = made(make, expected)
    assert side.cuda_stream != 0 and own(everything) == everything
    check_launches(everything, side.cuda_stream)


@each_operator
def test_on_another_device_than_the_current_one(make: Make, expected: list[str]) -> None:
    side = torch.cuda.Stream(device=1)
    with torch.cuda.stream(side), torch.cuda.device(0):
        everything = made(make, expected, device=1)
        assert torch.cuda.current_device() == 0
    check_launches(everything, side.cuda_stream, device=1)
    switches = [one.details[0] for one in everything if one.function == "cudaSetDevice"]
    assert switches == ["1", "0"] and everything[-1].function == "cudaSetDevice"


@each_operator
def test_where_the_second_device_is_the_current_one(make: Make, expected: list[str]) -> None:
    with torch.cuda.device(1):
        everything = made(make, expected, device=1)
        assert torch.cuda.current_device() == 1
    assert own(everything) == everything
    check_launches(everything, stream=0, device=1)


@pytest.mark.filterwarnings("ignore:The CUDA Graph is empty")  # of those that have nothing to do
@each_operator
def test_in_a_captured_graph(make: Make, expected: list[str]) -> None:
    """If an operator did what a capture forbids, the recorder would refuse it, and PyTorch would raise at the end."""
    call = make(New(0))
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        calls.clear()
        call()
        captured, stream = calls.recorded(FASTADV), torch.cuda.current_stream().cuda_stream
    assert stream != 0 and list(map(str, captured)) == expected
    check_launches(captured, stream)


def test_a_replayed_graph_calls_nothing_of_ours() -> None:
    graph = torch.cuda.CUDAGraph()
    new = New(0)
    images = new.images(2)
    with torch.cuda.graph(graph):
        ops.sign_step_(images[0], images[0], images[1], 1.0, 8.0)
    calls.clear()
    graph.replay()
    assert not calls.recorded(FASTADV) and any(call.function == "cudaGraphLaunch" for call in calls.recorded())


def test_the_backward_pass_is_pytorchs_on_the_same_stream() -> None:
    """The forward pass computed the derivative; backward only multiplies it by the loss's own."""
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        new = New(0)
        logits = new(64, 1000, dtype=torch.float16).requires_grad_()
        loss = ops.mixed_cross_entropy(logits, new.labels(), 16)
        calls.clear()
        loss.backward()
    launches = [call for call in calls.recorded() if call.launches]
    assert not calls.recorded(FASTADV) and len(launches) >= 2
    assert {(call.stream, call.device) for call in launches} == {(side.cuda_stream, 0)}


def test_a_grid_has_no_more_blocks_than_cuda_allows() -> None:
    """2^40 elements of float64, two to a pack, are 2^31 blocks, one more than a grid can have; threads stride."""
    new = New(0)
    adv, grad = (new(2**40, 1, dtype=torch.float64) for _ in range(2))
    calls.clear()
    ops.sign_step_(adv, adv, grad, 1.0, 8.0)
    (launch,) = (call for call in calls.recorded(FASTADV) if call.launches)
    assert launch.grid == (2**31 - 1, 1, 1)
