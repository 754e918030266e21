"""What an evaluation would cost, before it is made: gradients, forward passes and an estimate of the time."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastadv import attacks
from fastadv.evaluate.attack_specs import attack_class, stops_early
from fastadv.evaluate.effort import passes_per_image
from fastadv.evaluate.hits import hits
from fastadv.evaluate.records import CLEAN, Record, RecordFile
from fastadv.evaluate.sweep import Subject, Sweep, create_test_loader, group_by_pass, plan_of
from fastadv.utils.module_modes import isolated
from fastadv.utils.text import counted

_COLUMNS = ("model", "attack", "eps", "gradients", "forwards", "time")
_REPETITIONS = 2  # the fastest counts, after a warm-up


@dataclass(frozen=True)
class PlannedPass:
    """A pass over the images that has to be made.

    Args:
        model: its name.
        attack: as in records.
        eps: sizes, measured in one pass.
        gradients: of single images; None if the attack does not say how many it computes.
        forwards: forward passes of single images besides those of the gradients.
        seconds: estimated.
        stops_early: these are upper bounds: images leave the attack once they are misclassified.
    """

    model: str
    attack: str
    eps: tuple[float, ...]
    gradients: int | None
    forwards: int
    seconds: float | None
    stops_early: bool = False


@dataclass(frozen=True)
class Rates:
    """Seconds for a gradient and for a forward pass of a single image, measured on one batch."""

    gradient: float
    forward: float


def plan_json(sweep: Sweep, subjects: Sequence[Subject], out: Path) -> str:
    """What :func:`describe_plan` says, as a JSON object: ``passes``, and the number of measurements ``recorded``."""
    passes, recorded = plan_passes(sweep, subjects, _records_in(out))
    return json.dumps({"passes": [asdict(one) for one in passes], "recorded": recorded}, indent=2)


def _records_in(out: Path) -> RecordFile[Record] | None:
    path = _path_in(out)
    return RecordFile(path, Record) if path.exists() else None


def _path_in(out: Path) -> Path:
    return out / "robustness.jsonl"


def describe_plan(sweep: Sweep, subjects: Sequence[Subject], out: Path, *, may_stop: bool = False) -> str:
    """Say what a sweep would measure that the folder's records lack: a table of passes, and their sum.

    Args:
        sweep: what is measured.
        subjects: the models.
        out: the folder.
        may_stop: whether the drawing of images may stop before the last.
    """
    passes, recorded = plan_passes(sweep, subjects, _records_in(out))
    rows = [_COLUMNS, *(_row(one) for one in passes)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS))]
    lines = ["  ".join(_aligned(row, widths)).rstrip() for row in rows] if passes else []
    seconds = [one.seconds for one in passes]
    total = _duration(sum(one or 0 for one in seconds)) + (" and what ? takes" if None in seconds else "")
    gradients, forwards = sum(one.gradients or 0 for one in passes), sum(one.forwards for one in passes)
    most = "at most " if any(one.stops_early for one in passes) else ""
    sums = f"{counted(gradients, 'gradient')} and {counted(forwards, 'forward pass')} of single images"
    lines.append(f"{most}{sums}: {most}{total}")
    if most:
        lines.append("At most, since an image takes no more gradients once it is misclassified.")
    if may_stop:
        lines.append("This is for all images; drawing stops earlier, once the intervals are as narrow as --until asks.")
    lines.append("The time is that of one batch, scaled; reading images from files may add to it.")
    if recorded:
        lines.append(f"{counted(recorded, 'measurement')} of this command are in {_path_in(out)} already.")
    return "\n".join(lines)


def plan_passes(
    sweep: Sweep, subjects: Sequence[Subject], file: RecordFile[Record] | None
) -> tuple[list[PlannedPass], int]:
    """Return the passes that a sweep has to make, and how many of its measurements are recorded already.

    Args:
        sweep: what is measured.
        subjects: the models.
        file: the records; None if there are none.
    """
    images = sweep.shown()
    plan = plan_of(sweep, subjects, images)
    groups = group_by_pass(plan, file)
    rates = {subject.name: _measure(sweep, subject) for subject in dict.fromkeys(subject for subject, _ in groups)}
    passes = []
    for subject, together in groups:
        first, eps = together[0], tuple(one.eps for one in together)
        gradients, forwards = passes_per_image(subject.model, subject.space, first.attack, first.options, eps)
        forwards += len(eps)
        known_cost = first.attack == CLEAN or gradients or forwards > len(eps) or _counts_passes(first.attack)
        rate = rates[subject.name]
        seconds = (gradients * rate.gradient + forwards * rate.forward) * len(images)
        passes.append(
            PlannedPass(
                subject.name,
                first.attack,
                eps,
                gradients * len(images) if known_cost else None,
                forwards * len(images),
                seconds if known_cost else None,
                first.attack != CLEAN and stops_early(attack_class(first.attack), first.options),
            )
        )
    return passes, len(plan) - sum(len(together) for _, together in groups)


def _counts_passes(attack: str) -> bool:
    """False for an attack of one's own with a ``run_``, which may compute any number."""
    kind = attack_class(attack)
    return issubclass(kind, attacks.GradientAttack) or kind.__module__.startswith("fastadv.")


def _measure(sweep: Sweep, subject: Subject) -> Rates:
    """Time a gradient and a forward pass on the first batch."""
    loader = create_test_loader(sweep, sweep.shown(), subject.space)
    images, labels = (part.to(sweep.device) for part in next(iter(loader.epoch(0))))  # [m, C, H, W], [m]
    model = subject.model.to(sweep.device)
    with warnings.catch_warnings(), isolated(model, bn="eval"):
        warnings.simplefilter("ignore")  # the evaluation warns
        attack = attacks.create("fgsm", model, eps=1, space=subject.space, fast=sweep.fast)
        forward = _fastest(lambda: hits(model, images, labels), images)
        gradient = _fastest(lambda: attack(images, labels), images)
    return Rates(gradient / len(images), forward / len(images))


def _fastest(work: Callable[[], Any], images: Tensor) -> float:
    """Seconds of the fastest of some runs, after a warm-up."""
    times = []
    for _ in range(1 + _REPETITIONS):
        start = time.perf_counter()
        work()
        if images.is_cuda:
            torch.cuda.synchronize(images.device)
        times.append(time.perf_counter() - start)
    return min(times[1:])


def _row(one: PlannedPass) -> tuple[str, ...]:
    gradients = "?" if one.gradients is None else f"{one.gradients:,}"
    seconds = "?" if one.seconds is None else _duration(one.seconds)
    return one.model, one.attack, ", ".join(f"{eps:g}" for eps in one.eps), gradients, f"{one.forwards:,}", seconds


def _aligned(row: Sequence[str], widths: Sequence[int]) -> list[str]:
    """Text to the left, numbers to the right."""
    return [
        cell.ljust(width) if column < 2 else cell.rjust(width)
        for column, (cell, width) in enumerate(zip(row, widths, strict=True))
    ]


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"about {round(seconds)} s" if seconds >= 1 else "less than 1 s"
    return f"about {round(seconds / 60)} min" if seconds < 5400 else f"about {seconds / 3600:.1f} h"
