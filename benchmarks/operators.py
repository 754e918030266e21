"""Counts operators: all of them, those on tensors of the images' size, their allocations, waits, and passes.

Waits are those that would occur on a GPU, wherever the tensors are: operators by which the host learns a value or a
size, the ones that ``capture=True`` rejects (``item``, ``bool``, ``nonzero``, boolean indexing, and the like), and
calls that read a whole tensor without an operator on the CPU: ``tolist``, ``cpu``, ``numpy``. ``to`` is not counted,
because on a CPU the two directions cannot be distinguished; copies of whole attacks are counted on a device that
computes nothing.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fastadv.attacks.engine.cuda_graph_recorder import waits


class Operators(TorchDispatchMode):
    """Counts operators by name within the block.

    Args:
        images: [N, C, ...]; tensors of this shape are full size.

    Attributes:
        names: how often each operator ran.
        moving: how often each read or wrote a full-size tensor; views are not counted.
        full_size: how many full-size tensors each allocated.
        waits: how often the host would wait for a GPU, by operator or method.
        weight_gradients: backward passes of convolutions that computed a gradient of the weight.
    """

    def __init__(self, images: Tensor) -> None:
        super().__init__()
        self.shape = images.shape
        self.names: Counter[str] = Counter()
        self.moving: Counter[str] = Counter()
        self.full_size: Counter[str] = Counter()
        self.waits: Counter[str] = Counter()
        self.weight_gradients = 0
        self._reads = _Reads(self.waits)

    def __enter__(self) -> Operators:
        self._reads.__enter__()
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._reads.__exit__(*error)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func._schema.name.removeprefix("aten::")
        self.names[name] += 1
        given = tensors_in((args, kwargs))
        places = {leaf.untyped_storage().data_ptr() for leaf in given}
        made = [leaf for leaf in tensors_in(result) if leaf.untyped_storage().data_ptr() not in places]
        touched = any(leaf.shape == self.shape for leaf in (*given, *made))
        self.moving[name] += touched and (bool(made) or func._schema.is_mutable)
        self.full_size[name] += sum(leaf.shape == self.shape for leaf in made)
        self.waits[name] += waits(func, given)
        if func is torch.ops.aten.convolution_backward.default:
            self.weight_gradients += bool(args[-1][1])  # output_mask: input, weight, bias
        return result


class _Reads(TorchFunctionMode):
    """Counts calls that read a whole tensor, which run no operator if it is on the CPU already."""

    def __init__(self, counted: Counter[str]) -> None:
        super().__init__()
        self._counted = counted

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (Tensor.tolist, Tensor.cpu, Tensor.numpy, Tensor.__array__):
            self._counted[func.__name__] += 1
        return func(*args, **(kwargs or {}))


def tensors_in(tree: Any) -> list[Tensor]:
    """The tensors in a nested structure."""
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]
