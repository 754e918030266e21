"""Reads the state dictionary in a weights file, and the metadata next to it. Nothing in the file is executed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastadv.models.beside_weights import safe_globals
from fastadv.utils.optional_deps import require
from fastadv.utils.text import few

_PICKLED = (".pth", ".pt", ".bin", ".ckpt", ".pth.tar", ".pt.tar")
# Names that training scripts give to weights, and to their averages; the first one found is taken.
_TRAINED = ("state_dict", "model_state_dict", "model", "net")
_AVERAGED = ("state_dict_ema", "model_ema", "ema_state_dict", "ema")
_DEPTH = 4  # levels of nested mappings that are searched
_SHOWN = 4


@dataclass(frozen=True, eq=False)
class WeightFile:
    """The content of a weights file.

    Args:
        weights: by name, as they are in the file.
        taken: the name of this state dictionary in the file; "" if the file holds nothing else.
        passed_over: the names of its other state dictionaries.
        beside: the file's other content by name, such as the ``args`` of the training script.
    """

    weights: dict[str, Tensor]
    taken: str
    passed_over: tuple[str, ...]
    beside: Mapping[str, Any]


def read_weights(path: Path, *, averaged: bool = False) -> WeightFile:
    """Read a weights file.

    Args:
        path: a ``.safetensors`` file, or a ``.pth``, ``.pt``, ``.bin``, ``.ckpt`` or ``.pth.tar`` file written by
            ``torch.save``, with tensors and also plain values, NumPy scalars and ``argparse.Namespace``.
        averaged: prefer averaged weights if the file holds several state dictionaries.

    Raises:
        ValueError: if the file has another format, or several state dictionaries under unknown names.
        OSError: if the file cannot be read.
    """
    content = _read(path)
    found = _state_dictionaries(content)
    if not found:
        got = f"the keys {few(list(map(str, content)), _SHOWN)}" if isinstance(content, Mapping) else type(content)
        raise ValueError(f"{path}: the file must hold a state dictionary, names and tensors, got {got}")
    taken = _chosen(found, averaged)
    if taken is None:
        or_averaged = ", or give --averaged" if any(map(is_averaged, found)) else ""
        raise ValueError(
            f"{path} holds several state dictionaries, {few(list(found), _SHOWN)}, but none under a known name "
            f"({', '.join(_TRAINED)}): save the right one to a separate file{or_averaged}"
        )
    weights = {str(name): tensor for name, tensor in found[taken].items() if isinstance(tensor, Tensor)}
    beside = content if taken else {}
    return WeightFile(weights, taken, tuple(name for name in found if name != taken), beside)


def is_averaged(name: str) -> bool:
    """True if a state dictionary of this name holds averaged weights."""
    return name.rpartition(".")[2] in _AVERAGED


def _read(path: Path) -> Any:
    if not path.name.endswith((".safetensors", *_PICKLED)):
        raise ValueError(f"weights files must be .safetensors, {', '.join(_PICKLED)}, got {path.name}")
    if not path.is_file():
        raise FileNotFoundError(f"there is no weights file {path}")
    if path.suffix == ".safetensors":
        safetensors = require("safetensors", extra="train")
        try:
            return require("safetensors.torch", extra="train").load_file(path)
        except safetensors.SafetensorError as error:
            raise ValueError(f"{path} is not a safetensors file: {error}") from error
    try:
        with torch.serialization.safe_globals(safe_globals()):
            return torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, MemoryError):
        raise
    except Exception as error:  # a damaged file can cause errors of any kind
        raise ValueError(
            f"{path} does not hold plain tensors: it is damaged, was not written by torch.save, or needs other code to "
            f"be loaded, as a whole pickled model does; save the model's state_dict() instead"
        ) from error


def _state_dictionaries(content: Any) -> dict[str, Mapping[Any, Any]]:
    """Find the innermost mappings that hold tensors, by their dotted names."""
    seen: set[int] = set()  # a mapping may occur in several places, or inside itself

    def search(value: Any, name: str, depth: int) -> dict[str, Mapping[Any, Any]]:
        # An optimiser's state holds tensors too.
        if not isinstance(value, Mapping) or id(value) in seen or "param_groups" in value or depth == 0:
            return {}
        seen.add(id(value))
        inner: dict[str, Mapping[Any, Any]] = {}
        for key, one in value.items():
            inner.update(search(one, f"{name}.{key}" if name else str(key), depth - 1))
        return inner or ({name: value} if any(isinstance(one, Tensor) for one in value.values()) else {})

    return search(content, "", _DEPTH)


def _chosen(found: dict[str, Any], averaged: bool) -> str | None:
    """Return the name of the state dictionary to take; None if that is unclear."""
    last = {name.rpartition(".")[2]: name for name in reversed(found)}  # the first of several with the same last part
    order = (*_AVERAGED, *_TRAINED) if averaged else _TRAINED  # averages only on request
    known = [last[name] for name in order if name in last]
    return known[0] if known else next(iter(found)) if len(found) == 1 else None
