"""The state dictionary in a file of weights, and what lies beside it. Nothing in a file is executed."""

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
# What training scripts call the weights among other things, and their averages; of several the first is taken.
_TRAINED = ("state_dict", "model_state_dict", "model", "net")
_AVERAGED = ("state_dict_ema", "model_ema", "ema_state_dict", "ema")
_DEPTH = 4  # of mappings in mappings that are searched
_SHOWN = 4


@dataclass(frozen=True, eq=False)
class WeightFile:
    """What a file of weights holds.

    Args:
        weights: by name, as they are in the file.
        taken: what the file calls them; "" if it holds nothing else.
        passed_over: what it calls its other state dictionaries.
        beside: what else the file says, by name, such as the ``args`` of the script that trained the network.
    """

    weights: dict[str, Tensor]
    taken: str
    passed_over: tuple[str, ...]
    beside: Mapping[str, Any]


def read_weights(path: Path, *, averaged: bool = False) -> WeightFile:
    """Read a file of weights.

    Args:
        path: ``.safetensors``, or a ``.pth``, ``.pt``, ``.bin``, ``.ckpt`` or ``.pth.tar`` file that ``torch.save``
            wrote: tensors, with plain values, NumPy scalars and ``argparse.Namespace`` beside them.
        averaged: of several state dictionaries take the averaged weights, if there are any.

    Raises:
        ValueError: a file that is none of these, or of several state dictionaries none has a name that is known.
        OSError: the file cannot be read.
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
            f"{path} holds several state dictionaries, {few(list(found), _SHOWN)}, and none is called "
            f"{', '.join(_TRAINED)}: save the one that is meant to a file of its own{or_averaged}"
        )
    weights = {str(name): tensor for name, tensor in found[taken].items() if isinstance(tensor, Tensor)}
    beside = content if taken else {}
    return WeightFile(weights, taken, tuple(name for name in found if name != taken), beside)


def is_averaged(name: str) -> bool:
    """Whether a state dictionary of this name in a file holds averaged weights."""
    return name.rpartition(".")[2] in _AVERAGED


def _read(path: Path) -> Any:
    if not path.name.endswith((".safetensors", *_PICKLED)):
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
        with torch.serialization.safe_globals(safe_globals()):
            return torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, MemoryError):
        raise
    except Exception as error:  # of any kind: what a damaged file is taken for is chance
        raise ValueError(
            f"{path} does not hold plain tensors: it is damaged, no file of torch.save, or needs code of its own to be "
            f"read, as a whole model does, of which save the state_dict()"
        ) from error


def _state_dictionaries(content: Any) -> dict[str, Mapping[Any, Any]]:
    """The mappings that hold tensors, by their dotted names; one that holds such mappings is none itself."""
    seen: set[int] = set()  # a mapping may lie in many places, or in itself

    def search(value: Any, name: str, depth: int) -> dict[str, Mapping[Any, Any]]:
        # An optimiser has tensors, too.
        if not isinstance(value, Mapping) or id(value) in seen or "param_groups" in value or depth == 0:
            return {}
        seen.add(id(value))
        inner: dict[str, Mapping[Any, Any]] = {}
        for key, one in value.items():
            inner.update(search(one, f"{name}.{key}" if name else str(key), depth - 1))
        return inner or ({name: value} if any(isinstance(one, Tensor) for one in value.values()) else {})

    return search(content, "", _DEPTH)


def _chosen(found: dict[str, Any], averaged: bool) -> str | None:
    """The name of what is taken; None where no rule tells."""
    last = {name.rpartition(".")[2]: name for name in reversed(found)}  # the first of equal ones
    order = (*_AVERAGED, *_TRAINED) if averaged else _TRAINED  # averages beside others only if they are asked for
    known = [last[name] for name in order if name in last]
    return known[0] if known else next(iter(found)) if len(found) == 1 else None
