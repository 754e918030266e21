"""Helpers of ``fastadv evaluate`` and ``fastadv transfer``: they measure models into a folder of records."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch

from fastadv.attacks.base import ball_of
from fastadv.attacks.engine.step_sizes import checked_eps
from fastadv.cli.model_specs import LoadedModels
from fastadv.evaluate.attack_specs import attack_class, parse_attack
from fastadv.evaluate.folder import describe_left_out
from fastadv.evaluate.records import RecordFile
from fastadv.evaluate.sweep import Sweep, create_test_loader
from fastadv.utils.gpu_settings import gpu_settings
from fastadv.utils.launch import launched
from fastadv.utils.log import logger
from fastadv.utils.text import printable

TO_CONTINUE = "run the same command again to continue"  # after an interruption

_SUFFIXES = (".md", ".csv", ".json", ".svg", ".png")
_MODELS = "models.json"  # in the output folder: which file or run each name stands for


def gpu_settings_for(arguments: argparse.Namespace, device: torch.device | str) -> AbstractContextManager[None]:
    """Apply the GPU settings of a command within the block."""
    return gpu_settings(torch.device(device), cudnn_benchmark=arguments.cudnn_benchmark, tf32=arguments.tf32)


def create_sweep(
    arguments: argparse.Namespace,
    loaded: LoadedModels,
    device: torch.device,
    *,
    default_limit: int | None,
    early_stop: bool = False,
) -> Sweep:
    """Build the Sweep of a command.

    Args:
        arguments: of the command.
        loaded: its models and images.
        device: where to measure.
        default_limit: how many images to use unless ``--limit`` says so; None for all.
        early_stop: see :class:`fastadv.evaluate.Sweep`.

    Raises:
        ValueError: if a model does not support an option of an attack, or a loader's option is wrong.
        ModuleNotFoundError: if the loader needs a package that is not installed.
    """
    total = len(loaded.images)
    if arguments.limit is not None and arguments.limit > total and launched().main:
        logger.info("--limit %s: %s has %s test images, and all are used", arguments.limit, loaded.config.name, total)
    limit = default_limit if arguments.limit is None else arguments.limit
    if limit is not None and limit < total and launched().main:
        logger.info(
            "%s: %s of the %s test images, drawn at random with --seed %s",
            *(loaded.config.name, f"{limit:,}", f"{total:,}", arguments.seed),
        )
    sweep = Sweep(
        dataset=loaded.config.name,
        images=loaded.images,
        limit=limit,
        drawn=True,
        attacks=arguments.attacks,
        eps=arguments.eps,
        seed=arguments.seed,
        batch_size=arguments.batch_size,
        device=device,
        fast=arguments.fast,
        early_stop=early_stop,
        data=loaded.config,
    )
    for subject in loaded.subjects:
        for attack in arguments.attacks:
            name, options = parse_attack(attack, subject.model, fast=arguments.fast, early_stop=early_stop)
            for eps in arguments.eps:  # warns of a unit that is not meant, even if no number has to be measured
                checked_eps(eps, subject.space, ball_of(attack_class(name), options))
        create_test_loader(sweep, sweep.images, subject.space)  # raises here what it would raise at the first image
    return sweep


def check_names(out: Path, loaded: LoadedModels, measured: Iterable[tuple[str, str]]) -> None:
    """Refuse a name that stands for another file or run in the output folder.

    The same file or run may have new weights, since it may have been trained further; and another file may hold weights
    that were measured under the name.

    Args:
        out: the folder.
        loaded: the models of the command.
        measured: name and checkpoint of each model in the folder's records.

    Raises:
        ValueError: if a name is taken.
    """
    known, weights = _names(out), set(measured)
    for subject in loaded.subjects:
        name, path = subject.name, loaded.paths[subject.name]
        taken = known.get(name, path) != path and any(name == one for one, _ in weights)
        if taken and (name, subject.fingerprint) not in weights:
            raise ValueError(
                f"{out} has results of {known[name]} under the name {name!r}: give {path} another name, as in "
                f"'{name} 2={loaded.texts[name]}', or write to another folder with --out"
            )


def write_names(out: Path, loaded: LoadedModels) -> None:
    """Note in the output folder which file or run each name stands for."""
    content = json.dumps(_names(out) | loaded.paths, indent=2)
    (out / _MODELS).write_text(content + "\n", encoding="utf-8")


def _names(out: Path) -> dict[str, str]:
    file = out / _MODELS
    try:
        found = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise ValueError(f"{file} is not what fastadv wrote: remove it, or write to another folder with --out")
    return found


def print_json(records: Sequence[Any], written: Sequence[Path]) -> None:
    """Print what a command measured and wrote as one JSON object, in place of tables."""
    found = [{name: value for name, value in vars(record).items() if name != "correct"} for record in records]
    print(json.dumps({"records": found, "written": list(map(str, written))}, indent=2))


def report_files(
    file: RecordFile[Any],
    written: Sequence[Path],
    possible: Iterable[Path],
    now: Any,
    left_out: Sequence[Any],
    *,
    say: bool = True,
) -> None:
    """Print what was written; remove what shows another setting, and say which records are not shown.

    Args:
        file: the folder's records.
        written: tables and figures of this command.
        possible: stems of all tables and figures that the folder's records can give.
        now: a record of this command.
        left_out: records of the folder that the tables and figures do not show.
        say: print what was written.
    """
    if say:
        print("written:", *map(printable, map(str, [file.path, *written])), sep="\n  ")
    files = {stem.with_name(stem.name + suffix) for stem in possible for suffix in _SUFFIXES}
    stale = sorted(path for path in files - {*written} if path.exists())
    for path in stale:
        path.unlink()
    if left_out:
        _say(f"kept in {file.path}, but in no table or figure of this command:", describe_left_out(now, left_out))
    if stale:
        _say("removed, since they showed such records:", stale)


def _say(head: str, lines: Iterable[object]) -> None:
    print(printable(head), *(printable(str(line)) for line in lines), sep="\n  ", file=sys.stderr)
