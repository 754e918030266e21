"""Read a checkpoint's files, and check their content before it is used.

The hashes prove only that the files are what was written. They may come from another program, or be made up, so no
number in them decides how much memory to allocate.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import nn

from fastadv.models.shapes import create_for_shapes
from fastadv.models.weights import mismatches
from fastadv.train.config import TrainConfig
from fastadv.train.yaml_text import read_yaml
from fastadv.utils.optional_deps import require
from fastadv.utils.plain_json import build_dataclass, parse_json
from fastadv.utils.regular_files import read_regular

FORMAT = 2
WEIGHTS, CONFIG, STATE, META = "model.safetensors", "config.yaml", "state.pt", "meta.json"
AVERAGED, CLASSES, SUMS = "averaged.safetensors", "classes.json", "SHA256SUMS"
# Bounds on the numbers in meta.json, which determine memory and time.
_RANGES = (("step", 0, 2**48), ("epoch", 0, 2**48), ("in_channels", 1, 1024), ("processes", 1, 2**16))
NAME = re.compile(r"step-(\d{8,})")


class CheckpointError(RuntimeError):
    """A checkpoint could not be written, or is not what was written; the message has its path."""


@dataclass(frozen=True, kw_only=True)
class Meta:
    """A checkpoint's position in its run.

    Args:
        step: iterations done.
        epoch: whole epochs done.
        in_channels: channels of the network's input.
        processes: number of processes that trained together.
    """

    step: int
    epoch: int
    in_channels: int
    processes: int = 1

    def __post_init__(self) -> None:
        for name, least, most in _RANGES:
            if not least <= getattr(self, name) <= most:
                raise ValueError(f"{name} must be at least {least} and at most {most}, got {getattr(self, name)}")


@dataclass(frozen=True, eq=False)
class Saved:
    """Content of a checkpoint.

    Args:
        meta: the position in the run.
        config: the run's configuration.
        weights: parameters and buffers by name, on the CPU.
        averaged: the same, averaged over the iterations; None if the run has no averages.
        classes: class names, in the order of the logits.
        state: as given to :func:`fastadv.train.checkpoint.save`.
    """

    meta: Meta
    config: TrainConfig
    weights: dict[str, torch.Tensor]
    averaged: dict[str, torch.Tensor] | None
    classes: tuple[str, ...]
    state: dict[str, Any]


def read(path: Path) -> Saved:
    """Read the checkpoint ``path``, verify its hashes, and check that its content can be used.

    Raises:
        CheckpointError: if it is not usable.
    """
    files = verified(path)
    saved = Saved(
        meta=meta_of(path, files),
        classes=classes_of(path, files),
        state=state_of(path, files),
        weights=weights_of(path, files, WEIGHTS),
        averaged=weights_of(path, files, AVERAGED) if AVERAGED in files else None,
        config=config_of(path, files),
    )
    _check_fits_network(path, saved)
    return saved


def verified(path: Path) -> dict[str, bytes]:
    """Read the files of a checkpoint and verify their hashes."""
    if not (path / SUMS).is_file():
        raise CheckpointError(f"{path} is incomplete, or was written by an earlier version: no {SUMS}")
    files: dict[str, bytes] = {}
    try:
        lines = read_regular(path / SUMS).decode("ascii").removesuffix("\n").split("\n")
        sums = {name: digest for digest, name in (line.split("  ") for line in lines)}
        averaged = [AVERAGED] if (path / AVERAGED).exists() else []
        for name in dict.fromkeys((WEIGHTS, CONFIG, CLASSES, STATE, META, *averaged, *sums)):
            files[name] = read_regular(path / name)
            if hashlib.sha256(files[name]).hexdigest() != sums[name]:
                raise CheckpointError(f"{path} is damaged: {name} is not what was written (sha256 differs)")
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} is incomplete: no {Path(error.filename).name}") from error
    except OSError as error:
        raise CheckpointError(f"{path} is damaged: one of its files cannot be read ({error})") from error
    except (ValueError, KeyError) as error:
        raise CheckpointError(f"{path} is damaged: {SUMS} cannot be read ({error})") from error
    return files


def step_of(folder: Path) -> int:
    """The iterations in a checkpoint's name."""
    return int(folder.name.removeprefix("step-"))


@contextmanager
def _reading(path: Path, name: str) -> Iterator[None]:
    """Turn errors in the block into one line that names the file and the reason."""
    try:
        yield
    except (CheckpointError, ImportError, MemoryError):  # a missing library is not the file's fault
        raise
    except UnpicklingError as error:  # PyTorch's message advises to run the code in it
        raise CheckpointError(f"{path} is damaged: {name} does not hold plain values and tensors") from error
    except Exception as error:  # of any kind: readers fail in many ways on such content
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise CheckpointError(f"{path} is damaged: {name} cannot be read ({reason})") from error


def meta_of(path: Path, files: Mapping[str, bytes]) -> Meta:
    with _reading(path, META):
        about = parse_json(files[META])
        if not isinstance(about, dict) or about.get("format") != FORMAT:
            raise CheckpointError(f"{path} is not a checkpoint of this version: {META} has no format {FORMAT}")
        meta = build_dataclass(Meta, {field.name: about[field.name] for field in fields(Meta)})
        if NAME.fullmatch(path.name) and step_of(path) != meta.step:
            raise ValueError(f"step is {meta.step}, and the folder's name says {step_of(path)}")
    return meta


def config_of(path: Path, files: Mapping[str, bytes]) -> TrainConfig:
    with _reading(path, CONFIG):
        return _parsed_config(files[CONFIG])


@lru_cache(maxsize=64)  # a study reads each run's configuration many times
def _parsed_config(text: bytes) -> TrainConfig:
    """Does not use the command line's parser: training and resuming from Python need no jsonargparse."""
    values = read_yaml(text.decode())
    if not isinstance(values, dict) or not values:
        raise ValueError(f"it must map fields to values, got {type(values).__name__}")
    return build_dataclass(TrainConfig, values)


def classes_of(path: Path, files: Mapping[str, bytes]) -> tuple[str, ...]:
    with _reading(path, CLASSES):
        names = parse_json(files[CLASSES])
        if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
            raise ValueError("it must be a list of names")
    return tuple(names)


def weights_of(path: Path, files: Mapping[str, bytes], name: str) -> dict[str, torch.Tensor]:
    load = require("safetensors.torch", extra="train").load
    with _reading(path, name):
        weights: dict[str, torch.Tensor] = load(files[name])
    return weights


def state_of(path: Path, files: Mapping[str, bytes]) -> dict[str, Any]:
    with _reading(path, STATE):
        state: Any = torch.load(io.BytesIO(files[STATE]), map_location="cpu", weights_only=True)
        if not isinstance(state, dict):
            raise ValueError(f"it must be a dictionary, got {type(state).__name__}")
    return state


def no_averages(path: Path) -> str:
    return f"{path} has no averaged weights: its run was trained without --ema-decay"


def network_of(saved: Saved) -> nn.Module:
    from fastadv import models

    options, channels = saved.config.model.options, saved.meta.in_channels
    return models.create(saved.config.model.name, num_classes=len(saved.classes), in_channels=channels, **options)


def _check_fits_network(path: Path, saved: Saved) -> None:
    """Check that the weights are those of the network that the other files describe.

    The network is created without memory for its weights, because the files' numbers are not trusted yet.
    """
    with _reading(path, CONFIG):
        network = create_for_shapes(lambda: network_of(saved))
    own = network.state_dict()
    for name, weights in ((WEIGHTS, saved.weights), (AVERAGED, saved.averaged)):
        if weights is not None and (problems := mismatches(own, weights)):
            raise CheckpointError(f"{path} is damaged: {name} is of another network: {'; '.join(problems)}")
