"""Weights of one's own from a file, into a model that they fit exactly."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fastadv.extras import require
from fastadv.wording import few

_PICKLED = (".pth", ".pt", ".bin", ".ckpt")
_CONTAINERS = ("state_dict", "model_state_dict", "model")  # what training scripts call the weights among other things
_WRAPPERS = ("module.", "_orig_mod.")  # DistributedDataParallel, torch.compile
_SHOWN = 4


class WeightsDoNotFitError(ValueError):
    """Weights of another model, or of one with another number of classes."""


def load_weights(model: nn.Module, path: Path) -> None:
    """Load a state dictionary into a model, all of it and nothing besides.

    Args:
        model: takes the weights and buffers.
        path: ``.safetensors``, or a ``.pth``, ``.pt``, ``.bin`` or ``.ckpt`` file of tensors that ``torch.save`` wrote;
            no code in it is run. The weights may lie under ``state_dict``, ``model_state_dict`` or ``model``, and be
            those of a module wrapped by DistributedDataParallel or torch.compile.

    Raises:
        WeightsDoNotFitError: a ValueError; the message names the first weights that differ.
        ValueError: a file that is none of these.
        OSError: the file cannot be read.
    """
    weights = _unwrapped(_read(path))
    own = model.state_dict()
    shapes = [
        f"{name} is {list(weights[name].shape)} in the file and {list(own[name].shape)} in the model"
        for name in own.keys() & weights.keys()
        if weights[name].shape != own[name].shape
    ]
    problems = [
        *_some("the file lacks", sorted(own.keys() - weights.keys())),
        *_some("the model has no", sorted(weights.keys() - own.keys())),
        *_some("", sorted(shapes)),
    ]
    if problems:
        raise WeightsDoNotFitError(
            f"{path} does not fit the model {type(model).__name__}: {'; '.join(problems)}. Name the model that the "
            f"weights were trained as, and the data set whose number of classes it had"
        )
    model.load_state_dict(weights)


def _read(path: Path) -> Any:
    if path.suffix not in (".safetensors", *_PICKLED):
        raise ValueError(f"weights are read from .safetensors, {', '.join(_PICKLED)} files, got {path.name}")
    if not path.is_file():
        raise FileNotFoundError(f"no file of weights at {path}")
    if path.suffix == ".safetensors":
        safetensors = require("safetensors", extra="train")
        try:
            return require("safetensors.torch", extra="train").load_file(path)
        except safetensors.SafetensorError as error:
            raise ValueError(f"{path} is not a safetensors file: {error}") from error
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, MemoryError):
        raise
    except Exception as error:  # of any kind: what a damaged file is taken for is chance
        raise ValueError(
            f"{path} does not hold plain tensors: it is damaged, no file of torch.save, or needs code of its own to be "
            f"read, as a whole model does, of which save the state_dict()"
        ) from error


def _unwrapped(content: Any) -> dict[str, Tensor]:
    """The state dictionary itself."""
    for container in _CONTAINERS:
        if isinstance(content, Mapping) and isinstance(content.get(container), Mapping):
            content = content[container]
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        got = f"the keys {few(list(map(str, content)), _SHOWN)}" if isinstance(content, Mapping) else type(content)
        raise ValueError(f"the file must hold a state dictionary, names and tensors, got {got}")
    weights = {str(name): tensor for name, tensor in content.items()}
    for wrapper in _WRAPPERS * 2:  # in either order
        if weights and all(name.startswith(wrapper) for name in weights):
            weights = {name.removeprefix(wrapper): tensor for name, tensor in weights.items()}
    return weights


def _some(what: str, names: list[str]) -> list[str]:
    return [f"{what} {few(names, _SHOWN)}".strip()] if names else []
