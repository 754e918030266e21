"""Which BatchNorm layers can be folded into which convolutions, by what a model does in one call."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node
from torch.utils._pytree import tree_leaves

# Exactly these: a subclass may do something else in its forward.
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
_HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")


def _is_batch_norm(module: nn.Module) -> bool:
    timm = sys.modules.get("timm.layers")  # where it is not loaded, the model has none of its layers
    known = (*BATCH_NORMS, timm.BatchNormAct2d) if timm is not None else BATCH_NORMS
    return type(module) in known and module.running_mean is not None


def is_plain(layer: nn.Module) -> bool:
    """Whether a layer computes what its class does, of weights that are its own, and nobody looks on.

    Pruning and weight normalisation compute the weight anew in each call, before the forward that folding replaces; a
    hook may change what goes in and comes out, or read what is another value when folded.
    """
    owns = all(name in layer._parameters for name in ("weight", "bias"))
    return owns and "forward" not in vars(layer) and not any(getattr(layer, hooks) for hooks in _HOOKS)


class Search:
    """Convolutions and the BatchNorm layers that alone read what they make, by one call of the model.

    Args:
        model: in evaluation mode.
        forward: how it is called, with images [N, C, ...].
        images: an example of them.

    Attributes:
        pairs: of a convolution and a BatchNorm each.
        left_out: how many layers were not looked at because they are not plain.
        output: what the model returned.
    """

    def __init__(self, model: nn.Module, forward: Callable[[Tensor], Any], images: Tensor) -> None:
        convolutions = [m for m in model.modules() if type(m) in CONVOLUTIONS and m.padding_mode == "zeros"]
        batch_norms = [m for m in model.modules() if _is_batch_norm(m)]
        plain = {layer for layer in (*convolutions, *batch_norms) if is_plain(layer)}
        self.left_out = len(convolutions) + len(batch_norms) - len(plain)
        self._made: dict[Node, nn.Module] = {}  # what a convolution's output comes from
        self._read: list[tuple[Node, nn.Module]] = []
        self._calls: Counter[nn.Module] = Counter()
        handles = [m.register_forward_hook(self._after_convolution) for m in convolutions if m in plain]
        handles += [m.register_forward_pre_hook(self._before_batch_norm) for m in batch_norms if m in plain]
        try:
            with torch.enable_grad():
                self.output = forward(images.detach().requires_grad_())
        finally:
            for handle in handles:
                handle.remove()
        self.pairs = self._pairs()

    def _after_convolution(self, module: nn.Module, _: Any, output: Tensor) -> None:
        self._calls[module] += 1
        if output.grad_fn is not None:
            self._made[output.grad_fn] = module

    def _before_batch_norm(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._calls[module] += 1
        if inputs and inputs[0].grad_fn in self._made:
            self._read.append((inputs[0].grad_fn, module))

    def _pairs(self) -> list[tuple[nn.Module, nn.Module]]:
        readers = _readers(self.output)
        return [
            (self._made[node], batch_norm)
            for node, batch_norm in self._read
            if readers.get(node) == 1 and self._calls[self._made[node]] == self._calls[batch_norm] == 1
        ]


def _readers(output: Any) -> dict[Node, int]:
    """How many operators read the result of each node that the output comes from."""
    waiting = [leaf.grad_fn for leaf in tree_leaves(output) if isinstance(leaf, Tensor) and leaf.grad_fn is not None]
    readers: dict[Node, int] = dict.fromkeys(waiting, 1)
    while waiting:
        for node, _ in waiting.pop().next_functions:
            if node is None:
                continue
            if node not in readers:
                waiting.append(node)
            readers[node] = readers.get(node, 0) + 1
    return readers
