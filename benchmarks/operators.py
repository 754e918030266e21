"""Counts what runs: operator by operator, those of the images' size, what they allocate, the waits, and the passes."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Operators(TorchDispatchMode):
    """Within the block, counts operators by name.

    Args:
        images: [N, C, ...], whose shape counts as full size.

    Attributes:
        names: how often each operator ran.
        moving: how often each read or wrote a tensor of the images' shape; views, which move nothing, are not counted.
        full_size: how many tensors of the images' shape each made, in memory of their own.
        waits: how often each read a value of the device's on the host.
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
        self.waits[name] += torch.Tag.data_dependent_output in func.tags
        if func is torch.ops.aten.convolution_backward.default:
            self.weight_gradients += bool(args[-1][1])  # output_mask: input, weight, bias
        return result


def tensors_in(tree: Any) -> list[Tensor]:
    """Those in a nested structure."""
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]
