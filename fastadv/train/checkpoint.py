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
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import nn

import fastadv
from fastadv.extras import require
from fastadv.train.config import TrainConfig
from fastadv.train.parsing import dump_config, parse_config

_FORMAT = 2
_WEIGHTS, _CONFIG, _STATE, _META = "model.safetensors", "config.yaml", "state.pt", "meta.json"
_AVERAGED, _CLASSES, _SUMS = "averaged.safetensors", "classes.json", "SHA256SUMS"
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


@dataclass(frozen=True, eq=False)
class Saved:
    """What a checkpoint holds for the run to continue.

    Args:
        meta: where the run stood.
        weights: parameters and buffers by name, on the CPU.
        averaged: the same, averaged over the iterations; None if the run averages nothing.
        classes: their names, in the order of the logits.
        state: as given to :func:`save`.
    """

    meta: Meta
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
            shutil.rmtree(target)
        partial.rename(target)
        for folder in (target.parent, run_dir):  # the name of the folder, and that of checkpoints itself
            _flush(folder)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise CheckpointError(f"could not write checkpoint {target}: {error}; earlier checkpoints are whole") from error
    usable = [path for path in _folders(run_dir) if _step(path) <= meta.step]  # later ones were refused by latest()
    for old in usable[:-keep]:
        shutil.rmtree(old)
    return target


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
    refused = []
    for path in reversed(_folders(run_dir)):
        try:
            read_meta(path)
        except CheckpointError as error:
            refused.append(str(error))
            continue
        if refused:
            warnings.warn(f"{'; '.join(refused)}; falling back to {path}", stacklevel=2)
        return path
    if refused:
        raise CheckpointError(f"no usable checkpoint in {run_dir}: {'; '.join(refused)}")
    return None


def resolve(path: str | os.PathLike[str]) -> Path:
    """The checkpoint that ``path`` means: itself, or the last good one of a run's folder.

    Raises:
        FileNotFoundError: neither.
        CheckpointError: a checkpoint that is not usable.
    """
    path = Path(path)
    if _NAME.fullmatch(path.resolve().name) or (path / _META).exists():
        read_meta(path)
        return path
    found = latest(path)
    if found is None:
        raise FileNotFoundError(f"{path} is neither a checkpoint nor the folder of a run that has one")
    return found


def read_meta(path: Path) -> Meta:
    """The :class:`Meta` of a checkpoint whose files are all there and as they were written.

    Raises:
        CheckpointError: anything else; the message has the path and the reason.
    """
    _verify(path)
    try:
        about = json.loads((path / _META).read_bytes())
        if not isinstance(about, dict) or about.get("format") != _FORMAT:
            raise CheckpointError(f"{path} is not a checkpoint of this version: {_META} has no format {_FORMAT}")
        return Meta(**{field.name: about[field.name] for field in fields(Meta)})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} is damaged: {_META} cannot be read ({error})") from error


def _verify(path: Path) -> None:
    """See that the files of a checkpoint are all there and have the hashes that were written with them."""
    if not (path / _SUMS).exists():
        raise CheckpointError(f"{path} is not a whole checkpoint, or one of an earlier version: no {_SUMS}")
    try:
        lines = (path / _SUMS).read_bytes().decode("ascii").removesuffix("\n").split("\n")
        sums = {name: digest for digest, name in (line.split("  ") for line in lines)}
        averaged = [_AVERAGED] if (path / _AVERAGED).exists() else []
        for name in dict.fromkeys((_WEIGHTS, _CONFIG, _CLASSES, _STATE, _META, *averaged, *sums)):
            if hashlib.sha256((path / name).read_bytes()).hexdigest() != sums[name]:
                raise CheckpointError(f"{path} is damaged: {name} is not what was written (sha256 differs)")
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} is not a whole checkpoint: no {Path(error.filename).name}") from error
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{path} is damaged: {_SUMS} cannot be read ({error})") from error


def _folders(run_dir: Path) -> list[Path]:
    """A run's checkpoints, by step."""
    folder = run_dir / "checkpoints"
    found = [path for path in folder.iterdir() if _NAME.fullmatch(path.name)] if folder.is_dir() else []
    return sorted(found, key=_step)


def _step(folder: Path) -> int:
    return int(folder.name.removeprefix("step-"))


# --- reading ---------------------------------------------------------------------------------------------------------


def load_config(path: Path) -> TrainConfig:
    """The configuration of the run that wrote the checkpoint ``path``."""
    yaml = require("yaml", extra="train")
    return parse_config(yaml.safe_load((path / _CONFIG).read_text()))


def read(path: Path) -> Saved:
    """Everything in the checkpoint ``path``.

    Raises:
        CheckpointError: it is not usable.
    """
    meta = read_meta(path)
    averaged = load_weights(path, averaged=True) if (path / _AVERAGED).exists() else None
    return Saved(meta, load_weights(path), averaged, load_classes(path), load_state(path))


def load_weights(path: Path, *, averaged: bool = False) -> dict[str, torch.Tensor]:
    """The weights and buffers of the checkpoint ``path``, or their averages.

    Raises:
        CheckpointError: there are no averages.
    """
    file = path / (_AVERAGED if averaged else _WEIGHTS)
    if not file.exists():
        raise CheckpointError(f"{path} has no averaged weights: its run was trained without --ema-decay")
    weights: dict[str, torch.Tensor] = require("safetensors.torch", extra="train").load(file.read_bytes())
    return weights


def load_classes(path: Path) -> tuple[str, ...]:
    """The names of the classes of the checkpoint ``path``, in the order of the logits."""
    return tuple(json.loads((path / _CLASSES).read_bytes()))


def load_state(path: Path) -> dict[str, Any]:
    """The ``state`` given to :func:`save`."""
    state: dict[str, Any] = torch.load(path / _STATE, map_location="cpu", weights_only=True)
    return state


def load_model(path: str | os.PathLike[str], *, averaged: bool = False) -> LoadedModel:
    """The network of a checkpoint, or of a run's last good one.

    Args:
        path: a checkpoint's folder, or a run's.
        averaged: with the averaged weights of a run that had ``ema_decay``.

    Raises:
        FileNotFoundError: neither.
        CheckpointError: not usable, or without averages.
    """
    from fastadv import models

    found = resolve(path)
    meta, config, classes = read_meta(found), load_config(found), load_classes(found)
    model = models.create(
        config.model.name, num_classes=len(classes), in_channels=meta.in_channels, **config.model.options
    )
    model.load_state_dict(load_weights(found, averaged=averaged))
    folder = found.resolve()
    name = folder.parent.parent.name if folder.parent.name == "checkpoints" else folder.name
    return LoadedModel(model.eval(), config, meta.step, name, classes)
