"""Checkpoints: folders that are written atomically and verified before they are used.

``RUN/checkpoints/step-00001200/`` holds the weights and buffers (``model.safetensors``), their averages if the run has
any (``averaged.safetensors``), the run's configuration (``config.yaml``), the class names in the order of the logits
(``classes.json``; a separate file, because there may be tens of thousands), the rest of the training state
(``state.pt``), and the position in the run (``meta.json``). ``SHA256SUMS`` has their hashes, in the format of
``sha256sum --check``. It needs no hash itself: any change to it makes a name or a hash mismatch. Checkpoints of format
1, which had the hashes in ``meta.json`` and no hash of that file, are refused.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

import fastadv
from fastadv.train.checkpoint_content import (
    AVERAGED,
    CLASSES,
    CONFIG,
    FORMAT,
    META,
    NAME,
    STATE,
    SUMS,
    WEIGHTS,
    CheckpointError,
    Meta,
    Saved,
    classes_of,
    config_of,
    meta_of,
    network_of,
    no_averages,
    read,
    state_of,
    step_of,
    verified,
    weights_of,
)
from fastadv.train.config import TrainConfig
from fastadv.train.config_parsing import dump_config
from fastadv.utils.optional_deps import require

__all__ = [
    "CheckpointError",
    "LoadedModel",
    "Meta",
    "Saved",
    "delete_after",
    "latest",
    "load_classes",
    "load_config",
    "load_model",
    "load_state",
    "load_weights",
    "newest",
    "read",
    "read_meta",
    "resolve",
    "save",
]


@dataclass(frozen=True)
class LoadedModel:
    """A trained network.

    Args:
        model: the network in eval mode, on the CPU.
        config: configuration of its run.
        step: iterations it was trained for.
        name: name of its run.
        classes: class names, in the order of the logits.
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
    spared: int | None = None,
) -> Path:
    """Write a checkpoint and delete all but the last ``keep`` of the run.

    Args:
        run_dir: the run's folder.
        model: the raw module, not a wrapper.
        averaged: a copy of the module with averaged weights, if the run has one.
        config: the run's configuration.
        classes: class names, in the order of the logits.
        state: what :func:`load_state` returns: tensors, numbers, strings and containers of these.
        meta: the position in the run.
        keep: checkpoints to keep, at least 1.
        spared: also keep the newest one with at most this many iterations.

    Returns:
        The checkpoint's folder.

    Raises:
        CheckpointError: if it could not be written; earlier checkpoints are unchanged.
    """
    target = run_dir / "checkpoints" / f"step-{meta.step:08d}"
    partial = target.with_name(f".{target.name}.partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        for left in target.parent.glob(".*.partial"):  # by a run that was killed while writing
            shutil.rmtree(left)
        _write_files(partial, model, averaged, config, classes, state, meta)
        if target.exists():  # it was refused by latest(): otherwise the run would have continued from it
            _delete(target)
        partial.rename(target)
        for folder in (target.parent, run_dir):  # for the names of the checkpoint and of checkpoints/
            _flush(folder)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise CheckpointError(
            f"could not write checkpoint {target}: {error}; earlier checkpoints are intact"
        ) from error
    usable = [path for path in _folders(run_dir) if step_of(path) <= meta.step]  # latest() refused later ones
    before = [path for path in usable if spared is not None and step_of(path) <= spared]
    for old in usable[:-keep]:
        if old not in before[-1:]:
            _delete(old)
    return target


def delete_after(run_dir: Path, step: int) -> None:
    """Delete a run's checkpoints of iterations after ``step``, the newest first, so that it can continue from there."""
    for path in reversed(_folders(run_dir)):
        if step_of(path) > step:
            _delete(path)


def _delete(folder: Path) -> None:
    """Delete a checkpoint atomically: another process may be reading it."""
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
    about = {"format": FORMAT, **asdict(meta), "fastadv": fastadv.__version__, "torch": torch.__version__}
    serialized = require("safetensors.torch", extra="train").save
    files = {
        WEIGHTS: serialized(_plain_tensors(model)),
        **({AVERAGED: serialized(_plain_tensors(averaged))} if averaged is not None else {}),
        CONFIG: dump_config(config).encode(),
        # In ASCII: a folder's name may hold bytes that are not UTF-8.
        CLASSES: json.dumps(list(classes)).encode("ascii"),
        STATE: pickled.getvalue(),
        META: json.dumps(about, indent=2).encode(),
    }
    sums = "".join(f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in files.items())
    folder.mkdir()
    for name, data in {**files, SUMS: sums.encode()}.items():
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
    """The last good checkpoint of a run; None if it has no checkpoints. Warns if a later one is not usable.

    Raises:
        CheckpointError: if there are checkpoints but no usable one.
    """
    found = newest(run_dir)
    return None if found is None else found[0]


def newest(run_dir: Path, *, before: int | None = None) -> tuple[Path, Saved] | None:
    """The last good checkpoint of a run and its content; see :func:`latest`.

    The run may be training at the same time, and delete checkpoints after writing others.

    Args:
        run_dir: the run's folder.
        before: consider only checkpoints with fewer iterations.
    """
    while True:
        refused: list[str] = []
        candidates = [path for path in _folders(run_dir) if before is None or step_of(path) < before]
        for path in reversed(candidates):
            try:
                saved = read(path)
            except CheckpointError as error:
                if not path.exists():
                    break  # the run has deleted it, so there is a later one
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
    """The checkpoint at ``path``, or the last good one if ``path`` is a run's folder.

    Raises:
        FileNotFoundError: if ``path`` is neither.
        CheckpointError: if the checkpoint is not usable.
    """
    return _resolved(Path(path))[0]


def _resolved(path: Path) -> tuple[Path, Saved]:
    """The same, with its content."""
    if NAME.fullmatch(path.resolve().name) or (path / META).exists():
        if not path.exists():
            raise FileNotFoundError(f"there is no checkpoint at {path}; a run deletes all but the last (--keep)")
        return path, read(path)
    found = newest(path)
    if found is None:
        raise FileNotFoundError(f"{path} is neither a checkpoint nor the folder of a run that has one")
    return found


def read_meta(path: Path) -> Meta:
    """The :class:`Meta` of a checkpoint, all of whose files are verified.

    Raises:
        CheckpointError: if a file is missing or damaged; the message has the path and the reason.
    """
    return meta_of(path, verified(path))


def _folders(run_dir: Path) -> list[Path]:
    """A run's checkpoints, sorted by step."""
    folder = run_dir / "checkpoints"
    found = [path for path in folder.iterdir() if NAME.fullmatch(path.name)] if folder.is_dir() else []
    return sorted(found, key=step_of)


# --- reading ---------------------------------------------------------------------------------------------------------


def load_config(path: Path) -> TrainConfig:
    """The configuration of the run that wrote the checkpoint ``path``.

    Raises:
        CheckpointError: if it cannot be read.
    """
    return config_of(path, {CONFIG: (path / CONFIG).read_bytes()})


def load_weights(path: Path, *, averaged: bool = False) -> dict[str, torch.Tensor]:
    """The weights and buffers of the checkpoint ``path``, or their averages.

    Raises:
        CheckpointError: if there are no averages, or they cannot be read.
    """
    name = AVERAGED if averaged else WEIGHTS
    if not (path / name).exists():
        raise CheckpointError(no_averages(path))
    return weights_of(path, {name: (path / name).read_bytes()}, name)


def load_classes(path: Path) -> tuple[str, ...]:
    """The class names in the checkpoint ``path``, in the order of the logits.

    Raises:
        CheckpointError: if they cannot be read.
    """
    return classes_of(path, {CLASSES: (path / CLASSES).read_bytes()})


def load_state(path: Path) -> dict[str, Any]:
    """The ``state`` that was given to :func:`save`.

    Raises:
        CheckpointError: if it cannot be read.
    """
    return state_of(path, {STATE: (path / STATE).read_bytes()})


def load_model(path: str | os.PathLike[str], *, averaged: bool = False) -> LoadedModel:
    """The network of a checkpoint, or of a run's last good one.

    Args:
        path: folder of a checkpoint or of a run.
        averaged: load the averaged weights, of a run with ``ema_decay``.

    Raises:
        FileNotFoundError: if ``path`` is neither.
        CheckpointError: if the checkpoint is not usable or has no averages.
    """
    found, saved = _resolved(Path(path))
    weights = saved.averaged if averaged else saved.weights
    if weights is None:
        raise CheckpointError(no_averages(found))
    model = network_of(saved)
    model.load_state_dict(weights)
    folder = found.resolve()
    name = folder.parent.parent.name if folder.parent.name == "checkpoints" else folder.name
    return LoadedModel(model.eval(), saved.config, saved.meta.step, name, saved.classes)
