"""Weights of one's own from a file, into a model that they fit exactly."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from fastadv.models.weight_files import read_weights
from fastadv.utils.text import few

# DistributedDataParallel and AveragedModel, torch.compile, Lightning and other modules that hold the network.
_WRAPPERS = ("module.", "_orig_mod.", "model.")
_COUNTER = "n_averaged"  # of torch.optim.swa_utils.AveragedModel
_TRACKED = "num_batches_tracked"  # of BatchNorm; weights of before PyTorch 0.4.1 have none, and evaluation needs none
_SHOWN = 4


class WeightsDoNotFitError(ValueError):
    """Weights of another model, or of one with another number of classes."""


def load_weights(model: nn.Module, path: Path) -> None:
    """Load a state dictionary into a model, all of it and nothing besides.

    Args:
        model: takes the weights and buffers.
        path: a file that :func:`fastadv.models.weight_files.read_weights` reads. The weights may be those of a module
            wrapped by DistributedDataParallel, torch.compile, AveragedModel or a module that calls it ``model``.

    Raises:
        WeightsDoNotFitError: a ValueError; the message names the first weights that differ.
        ValueError: a file that is none of these, or weights that are not plain tensors.
        OSError: the file cannot be read.
    """
    load_state(model, read_weights(path).weights, path)


def load_state(model: nn.Module, weights: Mapping[str, Tensor], path: Path) -> None:
    """Load weights that were read from ``path``: see :func:`load_weights`."""
    own = model.state_dict()
    weights = _unwrapped(weights, own)
    weights = {**{name: own[name] for name in own.keys() - weights.keys() if name.endswith(_TRACKED)}, **weights}
    if strange := _some("", [f"{name} is {what}" for name, tensor in weights.items() if (what := _strange(tensor))]):
        raise ValueError(
            f"{path} does not hold plain tensors: {'; '.join(strange)}; save dense ones, with their values"
        )
    if problems := mismatches(own, weights):
        raise WeightsDoNotFitError(
            f"{path} does not fit the model {type(model).__name__}: {'; '.join(problems)}. Name the model that the "
            f"weights were trained as, and the data set whose number of classes it had"
        )
    model.load_state_dict(weights)


def mismatches(own: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> list[str]:
    """How weights differ from those that a model has, by names, shapes and kinds of numbers; empty if they fit."""
    both = sorted(own.keys() & weights.keys())
    shapes = [
        f"{name} is {list(weights[name].shape)} in the file and {list(own[name].shape)} in the model"
        for name in both
        if weights[name].shape != own[name].shape
    ]
    # Integers in place of weights are quantised by hand: without their scale they are other weights.
    kinds = [
        f"{name} is {weights[name].dtype} in the file and {own[name].dtype} in the model"
        for name in both
        if weights[name].is_floating_point() != own[name].is_floating_point()
    ]
    return [
        *_some("the file lacks", sorted(own.keys() - weights.keys())),
        *_some("the model has no", sorted(weights.keys() - own.keys())),
        *_some("", shapes),
        *_some("", kinds),
    ]


def _unwrapped(weights: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """The weights by the names that the model has, as far as what wraps a network explains theirs."""
    while weights.keys() != own.keys():
        if _COUNTER not in own:
            weights = {name: tensor for name, tensor in weights.items() if name != _COUNTER}
        wrapper = next((prefix for prefix in _WRAPPERS if all(name.startswith(prefix) for name in weights)), None)
        if wrapper is None or not weights or weights.keys() <= own.keys():
            break
        weights = {name.removeprefix(wrapper): tensor for name, tensor in weights.items()}
    return weights


def _strange(tensor: Tensor) -> str:
    """What a tensor is that cannot be copied into a model's weights as it is; "" for a plain one."""
    if tensor.is_quantized:
        return f"quantized ({tensor.dtype})"
    if tensor.is_meta:
        return "without values (on the meta device)"
    if tensor.is_nested or tensor.layout != torch.strided:
        return f"not dense ({'nested' if tensor.is_nested else tensor.layout})"
    return ""


def _some(what: str, names: list[str]) -> list[str]:
    return [f"{what} {few(names, _SHOWN)}".strip()] if names else []
