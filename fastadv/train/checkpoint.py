"""Checkpoints: folders that are whole or not there, and that are verified before anything in them is used.

``RUN/checkpoints/step-00001200/`` holds the weights and buffers (``model.safetensors``), their averages if the run
keeps any (``averaged.safetensors``), the run's configuration (``config.yaml``), the names of the classes in the order
of the logits (``classes.json``; a file of its own, for there may be tens of thousands), what training needs besides
(``state.pt``), and where the run stood (``meta.json``). ``SHA256SUMS`` has the hash of each, in the form of
``sha256sum --check``. It needs no hash of its own: whatever is changed in it, a name or a hash no longer fits. A
checkpoint of format 1, which had the hashes in ``meta.json`` and none of that file itself, is refused.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import nn

import fastadv
from fastadv.extras import require
from fastadv.models.weights import misfits
from fastadv.plain_json import built, parsed
from fastadv.train.config import TrainConfig
from fastadv.train.parsing import dump_config, parse_config
from fastadv.train.yaml_text import read_yaml

_FORMAT = 2
_WEIGHTS, _CONFIG, _STATE, _META = "model.safetensors", "config.yaml", "state.pt", "meta.json"
_AVERAGED, _CLASSES, _SUMS = "averaged.safetensors", "classes.json", "SHA256SUMS"
# Of the numbers in meta.json, for memory is asked for and time taken by them.
_RANGES = (("step", 0, 2**48), ("epoch", 0, 2**48), ("in_channels", 1, 1024), ("processes", 1, 2**16))
_NAME = re.compile(r"step-(\d{8,})")


class CheckpointError(RuntimeError):
    """A checkpoint that could not be written, or that is not what was written. The message names its path."""


@dataclass(frozen=True, kw_only=True)
class Meta:
    """What a checkpoint says of itself.

    Args:
        step: iterations done.
        epoch: epochs done, whole ones.
        in_channels: of the network's input.
        processes: that trained it together.
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
    """What a checkpoint holds for the run to continue.

    Args:
        meta: where the run stood.
        config: the run's.
        weights: parameters and buffers by name, on the CPU.
        averaged: the same, averaged over the iterations; None if the run averages nothing.
        classes: their names, in the order of the logits.
        state: as given to :func:`save`.
    """

    meta: Meta
    config: TrainConfig
    weights: dict[str, torch.Tensor]
    averaged: dict[str, torch.Tensor] | None
    classes: tuple[str, ...]
    state: dict[str, Any]


@dataclass(frozen=True)
class LoadedModel:
    """A trained network.

    Args:
        model: in eval mode, on the CPU.
        config: of the run that trained it.
        step: iterations it was trained for.
        name: of the run.
        classes: the names of those that it tells apart, in the order of its logits.
    """

    model: nn.Module
    config: TrainConfig
    step: int
    name: str
    classes: tuple[str, ...]


# --- writing ---------------------------------------------------------------------------------------------------------


def save(
    run_dir: Path,
    *,
    model: nn.Module,
    averaged: nn.Module | None = None,
    config: TrainConfig,
    classes: Sequence[str],
    state: Mapping[str, Any],
    meta: Meta,
    keep: int = 3,
) -> Path:
    """Write a checkpoint of ``run_dir`` and delete all but the last ``keep``.

    Args:
        run_dir: the run's folder.
        model: the raw module, not a wrapper.
        averaged: the same module with averaged weights, if the run keeps them.
        config: the run's.
        classes: the names of the classes, in the order of the logits.
        state: what :func:`load_state` shall return; tensors, numbers, strings and containers of them.
        meta: where the run stands.
        keep: at least 1.

    Returns:
        The checkpoint's folder.

    Raises:
        CheckpointError: it could not be written; earlier checkpoints are as they were.
    """
    target = run_dir / "checkpoints" / f"step-{meta.step:08d}"
    partial = target.with_name(f".{target.name}.partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        for left in target.parent.glob(".*.partial"):  # by a run that was killed while it wrote
            shutil.rmtree(left)
        _write_files(partial, model, averaged, config, classes, state, meta)
        if target.exists():  # refused by latest(), or the run would have continued from it
            _delete(target)
        partial.rename(target)
        for folder in (target.parent, run_dir):  # the name of the folder, and that of checkpoints itself
            _flush(folder)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise CheckpointError(f"could not write checkpoint {target}: {error}; earlier checkpoints are whole") from error
    usable = [path for path in _folders(run_dir) if _step(path) <= meta.step]  # later ones were refused by latest()
    for old in usable[:-keep]:
        _delete(old)
    return target


def _delete(folder: Path) -> None:
    """Delete a checkpoint that is there whole until it is gone: another process may be reading it."""
    hidden = folder.with_name(f".{folder.name}.deleted.partial")
    shutil.rmtree(hidden, ignore_errors=True)
    folder.rename(hidden)
    shutil.rmtree(hidden)


def _write_files(
    folder: Path,
    model: nn.Module,
    averaged: nn.Module | None,
    config: TrainConfig,
    classes: Sequence[str],
    state: Mapping[str, Any],
    meta: Meta,
) -> None:
    pickled = io.BytesIO()
    torch.save(dict(state), pickled)
    about = {"format": _FORMAT, **asdict(meta), "fastadv": fastadv.__version__, "torch": torch.__version__}
    serialized = require("safetensors.torch", extra="train").save
    files = {
        _WEIGHTS: serialized(_plain_tensors(model)),
        **({_AVERAGED: serialized(_plain_tensors(averaged))} if averaged is not None else {}),
        _CONFIG: dump_config(config).encode(),
        # In ASCII: a folder's name may hold bytes that are no UTF-8.
        _CLASSES: json.dumps(list(classes)).encode("ascii"),
        _STATE: pickled.getvalue(),
        _META: json.dumps(about, indent=2).encode(),
    }
    sums = "".join(f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in files.items())
    folder.mkdir()
    for name, data in {**files, _SUMS: sums.encode()}.items():
        _write(folder / name, data)
    _flush(folder)


def _plain_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """Copies on the CPU: safetensors refuses tensors that share memory."""
    state = model.state_dict().items()
    return {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in state}


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _flush(folder: Path) -> None:
    """Make renames and new files in ``folder`` survive a power failure."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# --- finding ---------------------------------------------------------------------------------------------------------


def latest(run_dir: Path) -> Path | None:
    """The last good checkpoint of a run; None if it has no checkpoint. Warns if a later one is not usable.

    Raises:
        CheckpointError: there are checkpoints, and none is usable.
    """
    found = newest(run_dir)
    return None if found is None else found[0]


def newest(run_dir: Path, *, before: int | None = None) -> tuple[Path, Saved] | None:
    """The last good checkpoint of a run with what it holds: see :func:`latest`.

    The run may be training meanwhile, and delete each of its checkpoints once it has written others.

    Args:
        run_dir: the run's folder.
        before: only checkpoints of fewer iterations.
    """
    while True:
        refused: list[str] = []
        candidates = [path for path in _folders(run_dir) if before is None or _step(path) < before]
        for path in reversed(candidates):
            try:
                saved = read(path)
            except CheckpointError as error:
                if not path.exists():
                    break  # there is a later one by now
                refused.append(str(error))
                continue
            if refused:
                warnings.warn(f"{'; '.join(refused)}; falling back to {path}", stacklevel=2)
            return path, saved
        else:
            if refused:
                raise CheckpointError(f"no usable checkpoint in {run_dir}: {'; '.join(refused)}")
            return None


def resolve(path: str | os.PathLike[str]) -> Path:
    """The checkpoint that ``path`` means: itself, or the last good one of a run's folder.

    Raises:
        FileNotFoundError: neither.
        CheckpointError: a checkpoint that is not usable.
    """
    return _resolved(Path(path))[0]


def _resolved(path: Path) -> tuple[Path, Saved]:
    """The same, with what it holds."""
    if _NAME.fullmatch(path.resolve().name) or (path / _META).exists():
        if not path.exists():
            raise FileNotFoundError(f"there is no checkpoint at {path}; a run deletes all but the last (--keep)")
        return path, read(path)
    found = newest(path)
    if found is None:
        raise FileNotFoundError(f"{path} is neither a checkpoint nor the folder of a run that has one")
    return found


def read_meta(path: Path) -> Meta:
    """The :class:`Meta` of a checkpoint whose files are all there and as they were written.

    Raises:
        CheckpointError: anything else; the message has the path and the reason.
    """
    return _meta(path, _verified(path))


def _verified(path: Path) -> dict[str, bytes]:
    """The files of a checkpoint, if all are there and have the hashes that were written with them."""
    if not (path / _SUMS).is_file():
        raise CheckpointError(f"{path} is not a whole checkpoint, or one of an earlier version: no {_SUMS}")
    files: dict[str, bytes] = {}
    try:
        lines = (path / _SUMS).read_bytes().decode("ascii").removesuffix("\n").split("\n")
        sums = {name: digest for digest, name in (line.split("  ") for line in lines)}
        averaged = [_AVERAGED] if (path / _AVERAGED).exists() else []
        for name in dict.fromkeys((_WEIGHTS, _CONFIG, _CLASSES, _STATE, _META, *averaged, *sums)):
            if (path / name).exists() and not (path / name).is_file():  # a pipe or a device may have no end
                raise CheckpointError(f"{path} is damaged: {name} is not a file")
            files[name] = (path / name).read_bytes()
            if hashlib.sha256(files[name]).hexdigest() != sums[name]:
                raise CheckpointError(f"{path} is damaged: {name} is not what was written (sha256 differs)")
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} is not a whole checkpoint: no {Path(error.filename).name}") from error
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{path} is damaged: {_SUMS} cannot be read ({error})") from error
    return files


def _folders(run_dir: Path) -> list[Path]:
    """A run's checkpoints, by step."""
    folder = run_dir / "checkpoints"
    found = [path for path in folder.iterdir() if _NAME.fullmatch(path.name)] if folder.is_dir() else []
    return sorted(found, key=_step)


def _step(folder: Path) -> int:
    return int(folder.name.removeprefix("step-"))


# --- reading ---------------------------------------------------------------------------------------------------------


def read(path: Path) -> Saved:
    """Everything in the checkpoint ``path``.

    Its hashes say that it is what was written. That this can be used is checked besides, before any of it is.

    Raises:
        CheckpointError: it is not usable.
    """
    files = _verified(path)
    saved = Saved(
        meta=_meta(path, files),
        classes=_classes(path, files),
        state=_state(path, files),
        weights=_weights(path, files, _WEIGHTS),
        averaged=_weights(path, files, _AVERAGED) if _AVERAGED in files else None,
        config=_config(path, files),
    )
    _check_fits_network(path, saved)
    return saved


def load_config(path: Path) -> TrainConfig:
    """The configuration of the run that wrote the checkpoint ``path``.

    Raises:
        CheckpointError: it cannot be read.
    """
    return _config(path, {_CONFIG: (path / _CONFIG).read_bytes()})


def load_weights(path: Path, *, averaged: bool = False) -> dict[str, torch.Tensor]:
    """The weights and buffers of the checkpoint ``path``, or their averages.

    Raises:
        CheckpointError: there are no averages, or they cannot be read.
    """
    name = _AVERAGED if averaged else _WEIGHTS
    if not (path / name).exists():
        raise CheckpointError(_no_averages(path))
    return _weights(path, {name: (path / name).read_bytes()}, name)


def load_classes(path: Path) -> tuple[str, ...]:
    """The names of the classes of the checkpoint ``path``, in the order of the logits.

    Raises:
        CheckpointError: they cannot be read.
    """
    return _classes(path, {_CLASSES: (path / _CLASSES).read_bytes()})


def load_state(path: Path) -> dict[str, Any]:
    """The ``state`` given to :func:`save`.

    Raises:
        CheckpointError: it cannot be read.
    """
    return _state(path, {_STATE: (path / _STATE).read_bytes()})


def load_model(path: str | os.PathLike[str], *, averaged: bool = False) -> LoadedModel:
    """The network of a checkpoint, or of a run's last good one.

    Args:
        path: a checkpoint's folder, or a run's.
        averaged: with the averaged weights of a run that had ``ema_decay``.

    Raises:
        FileNotFoundError: neither.
        CheckpointError: not usable, or without averages.
    """
    found, saved = _resolved(Path(path))
    weights = saved.averaged if averaged else saved.weights
    if weights is None:
        raise CheckpointError(_no_averages(found))
    model = _network(saved)
    model.load_state_dict(weights)
    folder = found.resolve()
    name = folder.parent.parent.name if folder.parent.name == "checkpoints" else folder.name
    return LoadedModel(model.eval(), saved.config, saved.meta.step, name, saved.classes)


# --- what the files hold ---------------------------------------------------------------------------------------------


@contextmanager
def _reading(path: Path, name: str) -> Iterator[None]:
    """Say which file of a checkpoint cannot be read, and why, in one line."""
    try:
        yield
    except (CheckpointError, ImportError, MemoryError):  # a library that is missing says nothing of the file
        raise
    except UnpicklingError as error:  # PyTorch's reason is advice to run what is in it
        raise CheckpointError(f"{path} is damaged: {name} does not hold plain values and tensors") from error
    except Exception as error:  # of any kind: what such content is taken for is chance
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise CheckpointError(f"{path} is damaged: {name} cannot be read ({reason})") from error


def _meta(path: Path, files: Mapping[str, bytes]) -> Meta:
    with _reading(path, _META):
        about = parsed(files[_META])
        if not isinstance(about, dict) or about.get("format") != _FORMAT:
            raise CheckpointError(f"{path} is not a checkpoint of this version: {_META} has no format {_FORMAT}")
        meta = built(Meta, {field.name: about[field.name] for field in fields(Meta)})
        if _NAME.fullmatch(path.name) and _step(path) != meta.step:
            raise ValueError(f"step is {meta.step}, and the folder's name says {_step(path)}")
    return meta


def _config(path: Path, files: Mapping[str, bytes]) -> TrainConfig:
    with _reading(path, _CONFIG):
        values = read_yaml(files[_CONFIG].decode())
        if not isinstance(values, dict) or not values:
            raise ValueError(f"it must map fields to values, got {type(values).__name__}")
        return parse_config(values)


def _classes(path: Path, files: Mapping[str, bytes]) -> tuple[str, ...]:
    with _reading(path, _CLASSES):
        names = parsed(files[_CLASSES])
        if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
            raise ValueError("it must be a list of names")
    return tuple(names)


def _weights(path: Path, files: Mapping[str, bytes], name: str) -> dict[str, torch.Tensor]:
    load = require("safetensors.torch", extra="train").load
    with _reading(path, name):
        weights: dict[str, torch.Tensor] = load(files[name])
    return weights


def _state(path: Path, files: Mapping[str, bytes]) -> dict[str, Any]:
    with _reading(path, _STATE):
        state: Any = torch.load(io.BytesIO(files[_STATE]), map_location="cpu", weights_only=True)
        if not isinstance(state, dict):
            raise ValueError(f"it must be a dictionary, got {type(state).__name__}")
    return state


def _no_averages(path: Path) -> str:
    return f"{path} has no averaged weights: its run was trained without --ema-decay"


# --- its network -----------------------------------------------------------------------------------------------------


def _network(saved: Saved) -> nn.Module:
    from fastadv import models

    options, channels = saved.config.model.options, saved.meta.in_channels
    return models.create(saved.config.model.name, num_classes=len(saved.classes), in_channels=channels, **options)


def _check_fits_network(path: Path, saved: Saved) -> None:
    """Refuse weights that are not those of the network that the other files describe.

    It is made without memory for its weights: until then the numbers in these files are anybody's.
    """
    with _reading(path, _CONFIG):
        try:
            with torch.device("meta"):
                network = _network(saved)
        except ValueError as error:
            if isinstance(error.__cause__, NotImplementedError):  # made with values that it looks at, as RegNet is
                network = _network(saved)
            else:
                raise
    own = network.state_dict()
    for name, weights in ((_WEIGHTS, saved.weights), (_AVERAGED, saved.averaged)):
        if weights is not None and (problems := misfits(own, weights)):
            raise CheckpointError(f"{path} is damaged: {name} is of another network: {'; '.join(problems)}")
