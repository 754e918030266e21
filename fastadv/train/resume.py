"""Decide whether a run starts or continues, from which checkpoint, and with which configuration."""

from __future__ import annotations

import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

from fastadv import data
from fastadv.data.config import LoaderName
from fastadv.distributed import Processes
from fastadv.models.specs import parse_spec
from fastadv.train import checkpoint
from fastadv.train.config import TrainConfig
from fastadv.train.config_errors import ConfigError, check_used
from fastadv.train.config_parsing import flat
from fastadv.train.optim import depends_on_length
from fastadv.utils.text import counted

_FREE_ON_RESUME = {
    *("epochs", "accumulate", "device", "threads", "checkpoint_every", "keep", "log_every"),
    *("data.root", "data.download", "data.workers", "data.prefetch", "data.on_bad_image"),
    "attack.sources",  # their files may have moved: a task's state has hashes of them
    *("sentinel.every", "sentinel.then", "sentinel.fall"),
    # These change results by rounding alone.
    *("fast", "channels_last", "compile", "capture", "cudnn_benchmark"),
    *(f"attack.options.{name}" for name in ("fast", "fold_bn", "compile", "capture")),
}
_ABSENT = object()
_MOST_PROCESSES = 2**16  # suggested in messages


def starting_point(
    config: TrainConfig, run_dir: Path, resume: bool | Literal["auto"], processes: Processes
) -> tuple[TrainConfig, Path | None, str | None]:
    """The run's configuration, the checkpoint to continue from, and a warning for when it has been loaded.

    Raises:
        ValueError: if the configuration differs from that of the run to be resumed.
        FileExistsError: if the folder holds a run and ``resume`` is False.
        FileNotFoundError: if there is nothing to resume.
        CheckpointError: if no checkpoint is usable.
    """
    if not resume:
        _check_new(run_dir)
    found = checkpoint.newest(run_dir) if resume else None
    if found is None and resume is not True:
        _check_data(config)
        return _with_loader(config), None, None
    if found is None:
        raise FileNotFoundError(f"{run_dir} has no checkpoint to resume from; leave --resume out to start a run there")
    start, saved = found
    stored, before = saved.config, saved.meta.processes
    if config.data.loader == "auto":
        config = _with_loader(config, stored.data.loader)
    asked = config.accumulate
    config = _with_as_many_examples(config, stored, before, processes.world_size)
    _check_same(config, stored, run_dir)
    if config.data != stored.data:
        _check_data(config)
    if processes.world_size == before:
        kept = f"this run continues with accumulate {config.accumulate}, as before, not {asked}"
        return config, start, None if asked == config.accumulate else kept
    warning = (
        f"this run continues with {counted(processes.world_size, 'process')} instead of {before}, and accumulate "
        f"{config.accumulate} instead of {stored.accumulate}: the examples of each iteration stay the same, but "
        f"dropout is drawn anew, each process continues from the main one's running statistics (in free training also "
        f"from its perturbations), and sums differ in their last bits"
    )
    return config, start, warning


def with_absolute_paths(config: TrainConfig) -> TrainConfig:
    """The configuration with absolute paths of weights: the run may be resumed from another working directory."""
    init = None if config.model.init is None else os.path.abspath(os.path.expanduser(config.model.init))
    sources = [parse_spec(text).absolute().text for text in config.attack.sources]
    return replace(config, model=replace(config.model, init=init), attack=replace(config.attack, sources=sources))


def _check_data(config: TrainConfig) -> None:
    """Check that the data set uses the options that are set for it, in every phase."""
    check_used(config.data)
    for number, phase in enumerate(config.in_phases()):
        try:
            check_used(phase.data)
        except ConfigError as error:
            raise ConfigError(f"phases[{number}]: {error}") from error


def _with_loader(config: TrainConfig, name: LoaderName | None = None) -> TrainConfig:
    """Fix the loader of images in files, so that it is the same for all processes and after each restart.

    If DALI is missing on one of several machines, or after a restart, ``auto`` would silently change rounding and
    speed.
    """
    if config.data.name != "imagenet":
        return config
    loader = name or data.resolve_loader(config.data.loader, option="data.loader", say=True)
    return replace(config, data=replace(config.data, loader=loader))


def _check_new(run_dir: Path) -> None:
    log = run_dir / "log.jsonl"  # empty if the run ended before its first checkpoint
    if any((run_dir / "checkpoints").glob("step-*")) or (log.exists() and log.stat().st_size > 0):
        raise FileExistsError(f"{run_dir} already holds a run: continue it with --resume, or choose another --out")


def _with_as_many_examples(config: TrainConfig, stored: TrainConfig, before: int, now: int) -> TrainConfig:
    """Adapt ``accumulate`` to ``now`` processes, so that an iteration has as many minibatches as in ``stored``.

    ``config`` may be from the command that started the run, with the ``accumulate`` for the number of processes then.

    Raises:
        ValueError: if the number of processes, or ``config.accumulate``, does not divide the number of minibatches.
    """
    wanted = before * stored.accumulate
    if wanted % config.accumulate or wanted % now:
        fitting = ", ".join(
            f"{n} with {wanted // n}" for n in range(1, min(wanted, _MOST_PROCESSES) + 1) if wanted % n == 0
        )
        raise ValueError(
            f"an iteration of this run takes {wanted} minibatches, {stored.accumulate} (accumulate) on each of "
            f"{counted(before, 'process')}; with {counted(now, 'process')} and accumulate {config.accumulate} it would "
            f"be {now * config.accumulate}, for which its learning rate was not chosen. Possible numbers of processes, "
            f"with their accumulate: {fitting}"
        )
    return replace(config, accumulate=wanted // now)


def _check_same(config: TrainConfig, stored_config: TrainConfig, run_dir: Path) -> None:
    stored, wanted = flat(asdict(stored_config)), flat(asdict(config))
    free = _FREE_ON_RESUME - ({"epochs"} if depends_on_length(config.schedule) else set())
    if len(config.attack.sources) != len(stored_config.attack.sources):
        free -= {"attack.sources"}
    names = [name for name in stored | wanted if name not in free]
    differing = [name for name in names if stored.get(name, _ABSENT) != wanted.get(name, _ABSENT)]
    if differing:
        changes = "; ".join(
            f"{name} was {_shown(stored, name)} and is now {_shown(wanted, name)}" for name in differing
        )
        why = f"; a {config.schedule.name} schedule depends on the number of epochs" if "epochs" in differing else ""
        raise ValueError(f"{run_dir} cannot be resumed with another configuration: {changes}{why}")


def _shown(values: dict[str, Any], name: str) -> str:
    return repr(values[name]) if name in values else "not given"
