"""Recording work on a GPU as CUDA graphs, and refusing beforehand what no graph can hold."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

Work = Callable[[], None]


class NotCapturable(RuntimeError):
    """Work that cannot be recorded; the message is the reason."""


class Recorder(Protocol):
    """Records work that reads and writes the same tensors each time it is replayed."""

    def rehearse(self, work: Work) -> None:
        """Run the work once, as it will be recorded.

        Raises:
            NotCapturable: the work waits for the device, or leaves it.
        """

    def record(self, work: Work) -> Work:
        """The replay of the work, which this call records without running it."""

    def in_order(self) -> AbstractContextManager[None]:
        """Around a use of the recorded work's tensors: behind the previous use, whatever stream that was on."""


def create_recorder(device: torch.device) -> Recorder:
    """The recorder for a device.

    Raises:
        NotCapturable: it is not a GPU.
    """
    if device.type != "cuda":
        raise NotCapturable(f"CUDA graphs need a GPU, and the images are on {device}")
    return CudaRecorder(device)


class CudaRecorder:
    """CUDA graphs that share one memory pool, for they never run at the same time."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._pool = torch.cuda.graph_pool_handle()
        self._used = torch.cuda.Event()  # type: ignore[no-untyped-call]

    def rehearse(self, work: Work) -> None:
        current = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream), refusing_waits():
            work()
        current.wait_stream(self._stream)

    def record(self, work: Work) -> Work:
        graph = torch.cuda.CUDAGraph()
        # thread_local: what a loader's or NCCL's thread does meanwhile is not recorded, and so may not spoil it.
        with torch.cuda.graph(graph, self._pool, self._stream, capture_error_mode="thread_local"):
            work()
        return graph.replay

    @contextmanager
    def in_order(self) -> Iterator[None]:
        with torch.cuda.device(self._device):
            current = torch.cuda.current_stream()
            current.wait_event(self._used)
            yield
            self._used.record(current)


@contextmanager
def refusing_waits() -> Iterator[None]:
    """Within the block, an operator that the host would have to wait for raises :class:`NotCapturable`.

    Found out before recording begins: a recording that fails half-way can leave PyTorch's allocator in a state that it
    does not recover from.
    """
    with _RefusingWaits():  # type: ignore[no-untyped-call]
        yield


_WAITING = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}
_COPIES = (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)


class _RefusingWaits(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        if self._waits(func, tensors):
            raise NotCapturable(f"the model waits for the device, in {func}")
        result = func(*args, **(kwargs or {}))
        tensors += [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        devices = {str(tensor.device) for tensor in tensors if tensor.dim() > 0 or func in _COPIES}
        if len(devices) > 1:
            raise NotCapturable(f"the model moves data between {' and '.join(sorted(devices))}, in {func}")
        return result

    def _waits(self, func: Any, tensors: list[Tensor]) -> bool:
        if func is torch.ops.aten.index.Tensor:  # by integers it is as good as any operator
            return any(tensor.dtype in (torch.bool, torch.uint8) for tensor in tensors[1:])
        return not _WAITING.isdisjoint(func.tags)
