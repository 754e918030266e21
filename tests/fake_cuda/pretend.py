"""The block within which PyTorch, and all that uses it, finds one GPU."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch

from tests.fake_cuda.autograd import let_autograd_believe
from tests.fake_cuda.runtime import Event, Graph, Runtime, Stream
from tests.fake_cuda.tensor import CUDA, DeviceTensor, NumberedDevice, OnDevice

PROPERTIES = SimpleNamespace(
    name="A pretended GPU", major=9, minor=0, total_memory=2**37, multi_processor_count=132, L2_cache_size=50 * 2**20
)


@contextmanager
def pretended_gpu() -> Iterator[Runtime]:
    """One GPU, ``cuda:0``, for the time of the block."""
    let_autograd_believe()
    runtime = Runtime()
    with ExitStack() as stack:
        for target, name, value in _stubs(runtime):
            stack.enter_context(mock.patch.object(target, name, value, create=True))
        stack.enter_context(NumberedDevice())  # type: ignore[no-untyped-call]
        stack.enter_context(OnDevice(runtime))
        yield runtime


def _stubs(runtime: Runtime) -> list[tuple[Any, str, Any]]:
    cuda = torch.cuda
    calls: dict[str, Any] = {
        "_lazy_init": lambda: None,
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "set_device": _set_device,
        "device": lambda device: nullcontext(_checked(device)),
        "get_device_name": lambda device=None: PROPERTIES.name,
        "get_device_properties": lambda device=None: PROPERTIES,
        "get_device_capability": lambda device=None: (PROPERTIES.major, PROPERTIES.minor),
        "get_rng_state": lambda device="cuda": torch.get_rng_state(),
        "set_rng_state": lambda state, device="cuda": torch.set_rng_state(state),
        "manual_seed_all": lambda seed: None,
        "synchronize": lambda device=None: runtime.wait("synchronize"),
        "empty_cache": lambda: None,
        **{name: _of(runtime, kind) for name, kind in (("Stream", Stream), ("Event", Event), ("CUDAGraph", Graph))},
        "current_stream": lambda device=None: runtime.stream,
        "stream": lambda stream: _on_stream(runtime, stream),
        "graph": lambda graph, pool=None, stream=None, **options: graph.capturing(),
        "graph_pool_handle": lambda: (0, 1),
        "is_current_stream_capturing": lambda: runtime.recording is not None,
        "default_generators": (runtime.generator,),
        "is_bf16_supported": lambda including_emulation=True: True,
    }

    class HostGenerator(torch.Generator):
        def __new__(cls, device: Any = "cpu") -> HostGenerator:
            return super().__new__(cls, "cpu")

    optimizers = sys.modules["torch.optim.optimizer"]  # torch.optim hides it
    private = {
        "_cuda_clearCublasWorkspaces": lambda: None,
        "_cuda_endAllocateToPool": lambda device, pool: None,
    }
    return [
        *((cuda, name, value) for name, value in calls.items()),
        *((torch._C, name, value) for name, value in private.items()),
        (torch, "Generator", HostGenerator),
        *(
            (module, "_foreach_supported_types", [*module._foreach_supported_types, DeviceTensor])
            for module in (optimizers, torch.utils._foreach_utils)
        ),
    ]


def _of(runtime: Runtime, kind: type[Any]) -> type[Any]:
    """The class, made without its runtime, as PyTorch's own is."""

    def __init__(self: Any, *given: object, **options: object) -> None:
        kind.__init__(self, runtime)

    return type(kind.__name__, (kind,), {"__init__": __init__})


def _checked(device: Any) -> int:
    """The number of a device; like PyTorch's own, refuses one without a number where it asks for one."""
    index = device if isinstance(device, int) else _index(device)
    if index not in (None, CUDA.index):
        raise RuntimeError(f"CUDA error: invalid device ordinal, got {device}")
    return 0


def _set_device(device: Any) -> None:
    if not isinstance(device, int) and _index(device) is None:
        raise ValueError(f"Expected a torch.device with a specified index or an integer, but got: {device}")
    _checked(device)


def _index(device: torch.device | str) -> int | None:
    return (
        device.index if isinstance(device, torch.device) else int(device.partition(":")[2]) if ":" in device else None
    )


@contextmanager
def _on_stream(runtime: Runtime, stream: Stream) -> Iterator[None]:
    before, runtime.stream = runtime.stream, stream
    try:
        yield
    finally:
        runtime.stream = before
