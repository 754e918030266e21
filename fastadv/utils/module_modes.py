"""Runs a model without side effects: modes, buffers and gradients are the same afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from fastadv.utils.modules_behind import modules_behind

BN_MODES = ("eval", "batch")


def raw_module(model: Callable[..., Any]) -> Callable[..., Any]:
    """Return the module inside DistributedDataParallel, DataParallel and torch.compile.

    Generation needs no gradients of weights: through a data-parallel wrapper it would broadcast buffers and reduce
    gradients for nothing.
    """
    while True:
        if isinstance(model, (nn.parallel.DistributedDataParallel, nn.DataParallel)):
            model = model.module
        elif isinstance(model, nn.Module) and isinstance(getattr(model, "_orig_mod", None), nn.Module):
            model = model._orig_mod  # type: ignore[assignment]
        else:
            return model


@contextmanager
def isolated(model: Callable[..., Any], bn: str) -> Iterator[None]:
    """Put modules in evaluation mode within the block, and restore every module's mode, even if the block raises.

    Args:
        model: a module, or another callable, whose modules :func:`modules_behind` finds.
        bn: ``"eval"``: BatchNorm uses its running statistics. ``"batch"``: it uses the batch's, except in frozen layers
            (those in evaluation mode inside a model in training mode). Neither updates running statistics or counters.

    Raises:
        ValueError: if ``bn="batch"`` and there is a SyncBatchNorm over several processes, which would have to wait for
            each other.
    """
    with ExitStack() as stack:
        for whole in _outermost(modules_behind(model)):
            stack.enter_context(_isolated(whole, bn))
        yield


def _outermost(found: list[nn.Module]) -> list[nn.Module]:
    """Return the modules that are not inside another one."""
    parts = {part for whole in found for part in whole.modules() if part is not whole}
    return [whole for whole in found if whole not in parts]


@contextmanager
def _isolated(whole: nn.Module, bn: str) -> Iterator[None]:
    if bn == "batch" and _world_size() > 1 and any(isinstance(module, nn.SyncBatchNorm) for module in whole.modules()):
        raise ValueError("bn='batch' would reduce SyncBatchNorm's statistics over all processes: use bn='eval'")
    # A frozen TorchScript module has no mode.
    modes = [(module, module.training) for module in whole.modules() if hasattr(module, "training")]
    tracking: list[_BatchNorm] = []
    whole_trains = getattr(whole, "training", False)
    try:
        for module, training in modes:
            frozen = whole_trains and not training
            batch_norm = module if isinstance(module, _BatchNorm) else None
            use_batch = bn == "batch" and batch_norm is not None and not frozen
            if training != use_batch:
                module.training = use_batch
            if use_batch and batch_norm is not None and batch_norm.track_running_stats:
                # In training mode, a BatchNorm that does not track statistics neither reads nor writes buffers.
                tracking.append(batch_norm)
                batch_norm.track_running_stats = False
        yield
    finally:
        for module, training in modes:
            if module.training != training:
                module.training = training
        for module in tracking:
            module.track_running_stats = True


@contextmanager
def without_tracking(model: Callable[..., Any]) -> Iterator[None]:
    """In the block, BatchNorm in training mode leaves its running statistics and counters alone."""
    modules = [module for whole in modules_behind(model) for module in whole.modules()]
    tracking = [one for one in modules if isinstance(one, _BatchNorm) and one.training and one.track_running_stats]
    try:
        for module in tracking:
            module.track_running_stats = False  # then training reads and writes no buffer
        yield
    finally:
        for module in tracking:
            module.track_running_stats = True


def mixes_examples(model: Callable[..., Any], bn: str) -> bool:
    """True if an example's logits depend on the rest of its batch, within :func:`isolated`.

    They do if BatchNorm uses the batch's statistics; a layer without running statistics does so in either mode.
    """
    parts = (part for whole in modules_behind(model) for part in whole.modules())
    return any(isinstance(part, _BatchNorm) and (bn == "batch" or part.running_mean is None) for part in parts)


def _world_size() -> int:
    distributed = torch.distributed
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1
