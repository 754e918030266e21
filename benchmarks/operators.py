"""Counts what runs: operator by operator, those of the images' size, what they allocate, the waits, and the passes.

Waits are those that a GPU would cause, wherever the tensors are: operators by which the host learns a value or a size,
as ``capture=True`` refuses them (``item``, ``bool``, ``nonzero``, indexing by booleans, and the like), and what reads
all of a tensor without an operator on the CPU: ``tolist``, ``cpu``, ``numpy``. ``to`` is none of them: a CPU does not
tell the way to the device from the way back. Those of a whole attack show on a device that computes nothing.
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
    """Within the block, counts operators by name.

    Args:
        images: [N, C, ...], whose shape counts as full size.

    Attributes:
        names: how often each operator ran.
        moving: how often each read or wrote a tensor of the images' shape; views, which move nothing, are not counted.
        full_size: how many tensors of the images' shape each made, in memory of their own.
        waits: how often the host would wait for a GPU, by operator or by method.
        weight_gradients: convolutions' backward passes that computed a gradient of the weight.
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
    """Counts calls that read all of a tensor, which run no operator where it is on the CPU already."""

    def __init__(self, counted: Counter[str]) -> None:
        super().__init__()
        self._counted = counted

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (Tensor.tolist, Tensor.cpu, Tensor.numpy, Tensor.__array__):
            self._counted[func.__name__] += 1
        return func(*args, **(kwargs or {}))


def tensors_in(tree: Any) -> list[Tensor]:
    """Those in a nested structure."""
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]
