"""What ``fastadv train`` prints about a run's cost: the plan of --dry-run, and the last line."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from fastadv.train.config import TrainConfig
from fastadv.train.cost import checks_in, predict
from fastadv.train.trainer import Trainer
from fastadv.utils.text import counted

_COLUMNS = ("phase", "epochs", "iterations", "images", "attack", "eps", "lr", "precision", "clean epochs")


def cost_line(trainer: Trainer) -> str:
    """The cost of the iterations so far, and the one that is predicted for the whole run."""
    return (
        f"cost: {trainer.run.cost:.2f} {_unit(trainer)}; predicted for the whole run: {sum(predict(trainer.run)):.2f}"
    )


def plan(trainer: Trainer) -> str:
    """A table of the phases with their predicted costs, and a line with the sum."""
    run = trainer.run
    rows = [_COLUMNS]
    for number, (stage, cost) in enumerate(zip(run.stages, predict(run), strict=True)):
        phase = stage.config
        rows.append(
            (
                f"{number + 1}/{len(run.stages)}",
                str(phase.epochs),
                f"{run.timeline.steps[number]:,}",
                _images(phase),
                _attack(phase),
                _eps(phase),
                f"{phase.optimizer.lr:g}",
                phase.precision,
                f"{cost:.2f}",
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    total = f"predicted cost: {sum(predict(run)):.2f} {_unit(trainer)}"
    return "\n".join([*lines, *_of_the_whole_run(trainer), total])


def _of_the_whole_run(trainer: Trainer) -> Iterator[str]:
    """A line for each option that is not of a phase and that changes which examples are adversarial, or the cost."""
    run, attack = trainer.run, trainer.config.attack
    if attack.start_after:
        yield f"start_after: {attack.start_after:,} iterations on clean images first"
    if attack.eps_warmup:
        since = "from then on" if attack.start_after else "from the first iteration on"
        yield f"eps_warmup: {since} eps grows from 0 over {attack.eps_warmup:,} iterations"
    if attack.sources:
        yield f"sources: examples are made on the network or on {', '.join(attack.sources)}"
    if any(stage.sentinel is not None for stage in run.stages):
        yield f"sentinel: {counted(sum(map(partial(checks_in, run), range(len(run.stages)))), 'check')}"


def _unit(trainer: Trainer) -> str:
    data = trainer.config.data
    return "clean epochs" + (f" at {data.size} px" if data.name == "imagenet" else "")


def _images(phase: TrainConfig) -> str:
    return f"{phase.m} of {phase.data.size} px" if phase.data.name == "imagenet" else str(phase.m)


def _eps(phase: TrainConfig) -> str:
    attack = phase.attack
    if attack.training == "algorithm1" and not attack.k:
        return "none"
    return f"up to {attack.eps_upper:g}" if attack.eps is None else f"{attack.eps:g}"


def _attack(phase: TrainConfig) -> str:
    attack = phase.attack
    if attack.training == "algorithm1":
        return f"{attack.name}, k = {attack.k}" if attack.k else "none"
    return f"paired, {attack.name}" if attack.training == "paired" else attack.training
