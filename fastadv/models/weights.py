"""Loads weights from a file into a model that they fit exactly."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from fastadv.models.weight_files import read_weights
from fastadv.utils.text import few

# Of DistributedDataParallel and AveragedModel, torch.compile, and modules such as Lightning's that hold the network.
_WRAPPERS = ("module.", "_orig_mod.", "model.")
_COUNTER = "n_averaged"  # of torch.optim.swa_utils.AveragedModel
_TRACKED = (
    "num_batches_tracked"  # of BatchNorm; missing in weights from before PyTorch 0.4.1, and not needed for evaluation
)
_SHOWN = 4


class WeightsDoNotFitError(ValueError):
    """The weights belong to another model, or to one with another number of classes."""


def load_weights(model: nn.Module, path: Path) -> None:
    """Load a state dictionary into a model; names and shapes must match exactly.

    Args:
        model: gets the weights and buffers.
        path: a file that :func:`fastadv.models.weight_files.read_weights` reads. The weights may come from a module
            wrapped by DistributedDataParallel, torch.compile, AveragedModel or a module with the attribute ``model``.

    Raises:
        WeightsDoNotFitError: if names or shapes differ; a ValueError whose message names the first differences.
        ValueError: if the file has another format, or its weights are not plain tensors.
        OSError: if the file cannot be read.
    """
    load_state(model, read_weights(path).weights, path)


def load_state(model: nn.Module, weights: Mapping[str, Tensor], path: Path, *, left_out: Collection[str] = ()) -> None:
    """Load weights that were read from ``path``: see :func:`load_weights`.

    Weights whose names are ``left_out`` keep the values that the model has, whatever ``weights`` has under them.
    """
    own = model.state_dict()
    weights = _unwrapped(weights, own)
    weights = {name: tensor for name, tensor in weights.items() if name not in left_out}
    weights.update({name: own[name] for name in left_out})
    weights = {**{name: own[name] for name in own.keys() - weights.keys() if name.endswith(_TRACKED)}, **weights}
    if unusable := _listed("", [f"{name} is {why}" for name, tensor in weights.items() if (why := _unusable(tensor))]):
        raise ValueError(
            f"{path} does not hold plain tensors: {'; '.join(unusable)}; save dense tensors with their values"
        )
    if problems := mismatches(own, weights):
        raise WeightsDoNotFitError(
            f"{path} does not fit the model {type(model).__name__}: {'; '.join(problems)}. Pass the model that the "
            f"weights were trained with, and a data set with its number of classes"
        )
    model.load_state_dict(weights)


def mismatches(own: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> list[str]:
    """List how weights differ from a model's own in names, shapes and kinds of numbers; empty if they fit."""
    both = sorted(own.keys() & weights.keys())
    shapes = [
        f"{name} is {list(weights[name].shape)} in the file and {list(own[name].shape)} in the model"
        for name in both
        if weights[name].shape != own[name].shape
    ]
    # Integers in place of floats are quantised weights, which are wrong without their scale.
    kinds = [
        f"{name} is {weights[name].dtype} in the file and {own[name].dtype} in the model"
        for name in both
        if weights[name].is_floating_point() != own[name].is_floating_point()
    ]
    return [
        *_listed("the file lacks", sorted(own.keys() - weights.keys())),
        *_listed("the model has no", sorted(weights.keys() - own.keys())),
        *_listed("", shapes),
        *_listed("", kinds),
    ]


def _unwrapped(weights: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Strip the prefixes of known wrappers from the names, as long as they do not match the model's."""
    while weights.keys() != own.keys():
        if _COUNTER not in own:
            weights = {name: tensor for name, tensor in weights.items() if name != _COUNTER}
        wrapper = next((prefix for prefix in _WRAPPERS if all(name.startswith(prefix) for name in weights)), None)
        if wrapper is None or not weights or weights.keys() <= own.keys():
            break
        weights = {name.removeprefix(wrapper): tensor for name, tensor in weights.items()}
    return weights


def _unusable(tensor: Tensor) -> str:
    """Return why a tensor cannot be copied into a model's weights; "" if it can."""
    if tensor.is_quantized:
        return f"quantized ({tensor.dtype})"
    if tensor.is_meta:
        return "without values (on the meta device)"
    if tensor.is_nested or tensor.layout != torch.strided:
        return f"not dense ({'nested' if tensor.is_nested else tensor.layout})"
    return ""


def _listed(what: str, names: list[str]) -> list[str]:
    return [f"{what} {few(names, _SHOWN)}".strip()] if names else []
