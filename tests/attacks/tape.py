"""A CUDA graph on the CPU: records operators with their tensors and numbers, and runs them again unchanged.

What a graph fixes is fixed here: the memory that is read and written, the numbers among the arguments, and what Python
decided on the way. Memory is never reused, so what a graph's pool does is not shown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fastadv.attacks.engine.cuda_graph_recorder import collect_waits, refuse_waits


class Tape(TorchDispatchMode):
    """Records operators, and then replays them."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[tuple[Any, Any, Any, list[Tensor]]] = []
        self.replays = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.steps.append((func, args, kwargs or {}, tensors_in(result)))
        return result

    def replay(self) -> None:
        self.replays += 1
        with torch.no_grad():
            for func, args, kwargs, outputs in self.steps:
                places = {tensor.untyped_storage().data_ptr() for tensor in tensors_in((args, kwargs))}
                for old, new in zip(outputs, tensors_in(func(*args, **kwargs)), strict=True):
                    if old.untyped_storage().data_ptr() not in places:  # else a view of, or what mutated, an argument
                        old.copy_(new)


def tensors_in(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


class TapeRecorder:
    """Stands in for CudaRecorder."""

    def __init__(self, device: torch.device) -> None:
        self.tapes: list[Tape] = []

    def rehearse(self, work: Callable[[], None]) -> None:
        with refuse_waits(torch.device("cpu")):
            work()

    def watch(self, work: Callable[[], None]) -> str | None:
        with collect_waits(torch.device("cpu")) as reasons:
            work()
        return next(iter(reasons), None)

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        tape = Tape()
        with tape:
            work()
        self.tapes.append(tape)
        return tape.replay

    @contextmanager
    def in_order(self) -> Iterator[None]:
        yield

    def finish(self) -> None:
        pass
