"""Finds which BatchNorm layers can be folded into which convolutions, by watching one call of the model."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# Exact types: a subclass may have another forward.
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
_HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")


def _is_batch_norm(module: nn.Module) -> bool:
    timm = sys.modules.get("timm.layers")  # if it is not loaded, the model has none of its layers
    known = (*BATCH_NORMS, timm.BatchNormAct2d) if timm is not None else BATCH_NORMS
    return type(module) in known and module.running_mean is not None


def is_plain(layer: nn.Module) -> bool:
    """True if a layer runs its class's forward with its own weights and has no hooks.

    Pruning and weight normalisation compute the weight in each call, before the forward that folding replaces. A hook
    may change the input or output, or read values that differ when folded.
    """
    owns = all(name in layer._parameters for name in ("weight", "bias"))
    return owns and "forward" not in vars(layer) and not any(getattr(layer, hooks) for hooks in _HOOKS)


class Search:
    """Finds, in one call of the model, the convolutions whose output only a BatchNorm reads.

    Args:
        model: in evaluation mode.
        forward: calls the model with images [N, C, ...].
        images: a batch.

    Attributes:
        pairs: pairs of a convolution and its BatchNorm.
        left_out: number of layers that are not plain, or have weights that the model writes during the call.
        output: what the model returned.
    """

    def __init__(self, model: nn.Module, forward: Callable[[Tensor], Any], images: Tensor) -> None:
        convolutions = [m for m in model.modules() if type(m) in CONVOLUTIONS and m.padding_mode == "zeros"]
        batch_norms = [m for m in model.modules() if _is_batch_norm(m)]
        plain = {layer for layer in (*convolutions, *batch_norms) if is_plain(layer)}
        self._made: list[tuple[Tensor, nn.Module]] = []  # outputs, with their convolutions
        self._read: list[tuple[nn.Module, nn.Module]] = []
        self._calls: Counter[nn.Module] = Counter()
        self._before = {layer: _tensors(layer) for layer in plain}
        self._swapped: set[nn.Module] = set()  # layers that ran with other tensors
        self._reads = _Reads(memory for tensors in self._before.values() for memory in tensors)
        handles = [m.register_forward_hook(self._after_convolution) for m in convolutions if m in plain]
        handles += [
            m.register_forward_pre_hook(self._before_batch_norm, with_kwargs=True) for m in batch_norms if m in plain
        ]
        try:
            with torch.no_grad(), self._reads:
                self.output = forward(images.detach().clone())  # the model may write to its input
        finally:
            for handle in handles:
                handle.remove()
        self._still = {layer for layer in plain if self._is_still(layer)}
        self.left_out = len(convolutions) + len(batch_norms) - len(self._still)
        self.pairs = self._pairs()
        self._made.clear()  # frees activations

    def _after_convolution(self, module: nn.Module, _: Any, output: Tensor) -> None:
        self._called(module)
        if _has_memory(output):
            self._made.append((output, module))
            self._reads.watch(output)

    def _before_batch_norm(self, module: nn.Module, inputs: tuple[Tensor, ...], named: dict[str, Tensor]) -> None:
        self._called(module)
        given = next(iter((*inputs, *named.values())), None)
        self._read += [(convolution, module) for output, convolution in self._made if given is output]

    def _called(self, module: nn.Module) -> None:
        self._calls[module] += 1
        if _tensors(module) != self._before[module]:
            self._swapped.add(module)

    def _is_still(self, layer: nn.Module) -> bool:
        before = self._before[layer]
        return layer not in self._swapped and _tensors(layer) == before and not self._reads.written & set(before)

    def _pairs(self) -> list[tuple[nn.Module, nn.Module]]:
        read_once = {convolution for output, convolution in self._made if self._reads.of(output) == 1}
        return [
            (convolution, batch_norm)
            for convolution, batch_norm in self._read
            if convolution in read_once and {convolution, batch_norm} <= self._still
            if self._calls[convolution] == self._calls[batch_norm] == 1
        ]


class _Reads(TorchDispatchMode):
    """Within the block, counts the operators that read a watched tensor or a view of it, and notes written weights.

    Autograd's graph would not do: it lacks reads under torch.no_grad or after a detach.
    """

    supports_higher_order_operators = True

    def __init__(self, weights: Iterable[int]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.written: set[int] = set()
        self._weights = set(weights)
        self._count: dict[int, int] = {}  # by memory, which is not reused while its tensor exists

    def watch(self, tensor: Tensor) -> None:
        self._count[memory_of(tensor)] = 0

    def of(self, tensor: Tensor) -> int:
        return self._count[memory_of(tensor)]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        touched = {memory_of(x) for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor) and _has_memory(x)}
        for memory in touched & self._count.keys():
            self._count[memory] += 1
        schema = getattr(func, "_schema", None)  # higher-order operators, such as torch.cond, have none
        if schema is not None and schema.is_mutable:
            self.written |= touched & self._weights
        return func(*args, **(kwargs or {}))


def _has_memory(tensor: Tensor) -> bool:
    """True if a tensor has its own memory; false inside torch.func transforms, and for sparse tensors."""
    return tensor.layout == torch.strided and not torch._C._functorch.is_functorch_wrapped_tensor(tensor)


def _tensors(layer: nn.Module) -> list[int]:
    """Return the memory of the layer's weights and statistics."""
    return [memory_of(tensor) for tensor in (*layer.parameters(recurse=False), *layer.buffers(recurse=False))]


def memory_of(tensor: Tensor) -> int:
    """Identify the memory that a tensor and its views share."""
    return int(tensor.untyped_storage()._cdata)
