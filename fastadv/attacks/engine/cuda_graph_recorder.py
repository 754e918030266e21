"""Records work on a GPU as CUDA graphs, after checking that it can be recorded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

Work = Callable[[], object]


class NotCapturable(Exception):
    """The work cannot be recorded; the message is the reason."""


class Recorder(Protocol):
    """Records work that reads and writes the same tensors on each replay."""

    def rehearse(self, work: Work) -> None:
        """Run the work once, on the stream that will record it.

        Raises:
            NotCapturable: if the work waits for the device or moves data to another one.
        """

    def watch(self, work: Work) -> str | None:
        """Run the work once to its end; return why it cannot be recorded, or None."""

    def record(self, work: Work) -> Work:
        """Record the work without running it; return a function that replays it."""

    def in_order(self) -> AbstractContextManager[None]:
        """Order the block's use of the recorded work's tensors after their previous use, on whatever stream."""

    def finish(self) -> None:
        """Wait for the last use; call it before the tensors are freed."""


def create_recorder(device: torch.device) -> Recorder:
    """Create the recorder for a device.

    Raises:
        NotCapturable: if it is not a GPU.
    """
    if device.type != "cuda":
        raise NotCapturable(f"CUDA graphs need a GPU, and the images are on {device}")
    return CudaRecorder(device)


class CudaRecorder:
    """Records CUDA graphs that share one memory pool, since they never run at the same time."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._pool = torch.cuda.graph_pool_handle()
        self._used = torch.cuda.Event()  # type: ignore[no-untyped-call]

    def rehearse(self, work: Work) -> None:
        with self._on_own_stream(), refuse_waits(self._device):
            work()

    def watch(self, work: Work) -> str | None:
        with self._on_own_stream(), collect_waits(self._device) as reasons:
            work()
        return next(iter(reasons), None)

    def record(self, work: Work) -> Work:
        graph = torch.cuda.CUDAGraph()
        # The outer block restores the current stream, which some versions of torch.cuda.graph do not after an error.
        with torch.cuda.device(self._device), torch.cuda.stream(torch.cuda.current_stream(self._device)):
            try:
                # thread_local: other threads, such as a loader's or NCCL's, are not recorded and do no harm.
                with torch.cuda.graph(graph, self._pool, self._stream, capture_error_mode="thread_local"):
                    work()
            except BaseException:
                self._end_allocation()
                self._free_generator()
                raise
        _forget_workspaces()
        return graph.replay

    @contextmanager
    def _on_own_stream(self) -> Iterator[None]:
        """Run the block on the recorder's stream, ordered between earlier and later work of the current one."""
        current = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(current)
        try:
            with torch.cuda.stream(self._stream):
                yield
        finally:  # also after an error: work that was started would otherwise overlap with what follows
            current.wait_stream(self._stream)
        _forget_workspaces()

    @contextmanager
    def in_order(self) -> Iterator[None]:
        with torch.cuda.device(self._device):
            current = torch.cuda.current_stream()
            current.wait_event(self._used)
            try:
                yield
            finally:
                self._used.record(current)

    def finish(self) -> None:
        self._used.synchronize()

    def _end_allocation(self) -> None:
        """After a failed recording, some versions of torch keep allocating from its pool, until they crash."""
        # A RuntimeError means that this version does not.
        with suppress(RuntimeError):
            torch._C._cuda_endAllocateToPool(self._device.index, self._pool)

    def _free_generator(self) -> None:
        """After a failed recording, some versions of torch keep the generator in it, and the next dropout raises."""
        generator = torch.cuda.default_generators[self._device.index]
        generator.graphsafe_set_state(generator.clone_state())


def _forget_workspaces() -> None:
    """Make cuBLAS allocate a new workspace: one from a rehearsal would be freed while the recording still uses it."""
    torch._C._cuda_clearCublasWorkspaces()


@contextmanager
def refuse_waits(device: torch.device) -> Iterator[None]:
    """Within the block, raise :class:`NotCapturable` for operators that make the host wait for ``device``.

    It is better to find out before recording starts. Waits that PyTorch's operators do not show, such as those of an
    extension that synchronises, make the recording fail instead.
    """

    def refuse(reason: str) -> None:
        raise NotCapturable(reason)

    with _Watching(device, refuse):  # type: ignore[no-untyped-call]
        yield


@contextmanager
def collect_waits(device: torch.device) -> Iterator[list[str]]:
    """Within the block, collect the messages of what :func:`refuse_waits` would raise."""
    reasons: list[str] = []
    with _Watching(device, reasons.append):  # type: ignore[no-untyped-call]
        yield reasons


_WAITING = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}
_COPIES = (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)
_ERROR_CHECKS = (torch.ops.aten._linalg_check_errors.default,)


class _Watching(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Calls ``found`` with the reason for each operator that cannot be recorded."""

    def __init__(self, device: torch.device, found: Callable[[str], None]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._kind = device.type
        self._found = found

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        tensors = _tensors((args, kwargs))
        if any(tensor.device.type == self._kind for tensor in tensors) and waits(func, tensors):
            self._found(f"the model waits for the device, in {func}")
        result = func(*args, **(kwargs or {}))
        tensors += _tensors(result)
        devices = {str(tensor.device) for tensor in tensors if tensor.dim() > 0 or func in _COPIES}
        if len(devices) > 1:
            self._found(f"the model moves data between {' and '.join(sorted(devices))}, in {func}")
        return result


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def waits(func: Any, tensors: list[Tensor]) -> bool:
    """True if an operator makes the host wait for its tensors' GPU; copies are not considered."""
    name = func._schema.name
    if name == "aten::lift_fresh":  # torch.tensor of Python numbers, copied to the device
        return tensors[0].device.type != "cpu"
    if name.startswith(("aten::index.", "aten::index_put")) or name == "aten::index":
        return any(tensor.dtype in (torch.bool, torch.uint8) for tensor in tensors[1:])  # integer indices need no wait
    return func in _ERROR_CHECKS or not _WAITING.isdisjoint(func.tags)
