"""Learn the shapes of a network's weights without memory for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from fastadv import models


def create_for_shapes(make: Callable[[], nn.Module]) -> nn.Module:
    """Create a network on the meta device; one whose constructor reads values, as RegNet's does, on the CPU.

    Args:
        make: creates it; a function of this package, which turns a library's errors into ValueError.

    Raises:
        ValueError: if ``make`` raises it.
    """
    try:
        with torch.device("meta"):
            return make()
    except ValueError as error:
        if isinstance(error.__cause__, NotImplementedError):
            return make()
        raise


def head_of(name: str, *, num_classes: int, in_channels: int, options: Mapping[str, Any]) -> frozenset[str]:
    """Names of the weights of a network's classifier: those whose shapes depend on the number of classes.

    Args:
        name: of the network; see :func:`fastadv.models.create`, like the others.
        num_classes: number of classes.
        in_channels: channels of the images.
        options: options of the network.
    """

    def shapes(classes: int) -> dict[str, torch.Size]:
        make = partial(models.create, name, num_classes=classes, in_channels=in_channels, **options)
        return {weight: tensor.shape for weight, tensor in create_for_shapes(make).state_dict().items()}

    with torch.random.fork_rng([]):
        own, other = shapes(num_classes), shapes(num_classes + 1)
    return frozenset(weight for weight in own if own[weight] != other[weight])


def classes_of_weights(name: str, weights: Mapping[str, Tensor]) -> int | None:
    """Number of classes that a network's weights are for, by the shapes of its classifier; None if they lack it.

    Args:
        name: of the network, see :func:`fastadv.models.create`.
        weights: by name, which prefixes of wrappers such as DistributedDataParallel may precede.
    """
    head = head_of(name, num_classes=1000, in_channels=3, options={})
    found = {
        tensor.shape[0]
        for weight, tensor in weights.items()
        if any(weight == one or weight.endswith(f".{one}") for one in head) and tensor.dim() > 0
    }
    return found.pop() if len(found) == 1 else None
