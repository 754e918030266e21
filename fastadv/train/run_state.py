"""Save a run's state to a checkpoint, and restore it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastadv.data.fingerprint import difference, other_classes
from fastadv.distributed import gathered_on_main, on_all, on_main
from fastadv.train import checkpoint
from fastadv.train.epoch_metrics import EpochMetrics
from fastadv.train.run import Run
from fastadv.train.state_check import OPTIONAL, state_problem


def save_run(run: Run, *, step: int, metrics: EpochMetrics) -> Path:
    """Write a checkpoint on the main process; returns its folder on all of them.

    Args:
        run: the run, on this process.
        step: iterations done.
        metrics: metrics of the epoch under way.

    Raises:
        CheckpointError: if it could not be written.
    """
    states = gathered_on_main(run.processes, process_state(run))

    def write() -> Path:
        return checkpoint.save(
            run.run_dir,
            model=run.model,
            averaged=None if run.averages is None else run.averages.module,
            config=run.config,
            classes=run.classes,
            state={**shared_state(run, metrics), "processes": states},
            meta=checkpoint.Meta(
                step=step,
                epoch=run.timeline.epochs_done(step),
                in_channels=run.in_channels,
                processes=run.processes.world_size,
            ),
            keep=run.config.keep,
            spared=None if run.sentinel is None else run.sentinel.spared,
        )

    return on_main(run.processes, write)


def read_run(run: Run, path: Path, metrics: EpochMetrics) -> tuple[Path, checkpoint.Saved]:
    """Read a checkpoint on the main process, for all; if the run cannot use its state, the last good one before it.

    Warns:
        UserWarning: if an earlier checkpoint was read.

    Raises:
        CheckpointError: if none is usable.
        ValueError: if the training set or the names of its classes differ from those of the checkpoint.
        FailedElsewhere: if another process raised one of these.
    """
    path, saved = on_main(run.processes, lambda: _read_usable(run, path, metrics))
    on_all(run.processes, lambda: _check_training_set(run, saved, path))
    return path, saved


def restore_run(run: Run, saved: checkpoint.Saved, metrics: EpochMetrics) -> None:
    """Bring the run to the state of a checkpoint that :func:`read_run` has checked."""
    state = saved.state
    run.model.load_state_dict(saved.weights)
    if run.averages is not None:
        assert saved.averaged is not None
        run.averages.module.load_state_dict(saved.averaged)
    # A task counts minibatches, a run iterations: the number of minibatches per iteration may have changed.
    run.task.load_state_dict({**state["task"], "iteration": saved.meta.step * run.config.accumulate})
    run.optimizer.load_state_dict(state["optimizer"])
    # Only the keys that a schedule has. Its function stays: PyTorch would let the file replace it.
    before = run.schedule.state_dict()
    kept = {name: state["schedule"].get(name, value) for name, value in before.items() if name != "lr_lambdas"}
    run.schedule.load_state_dict({**before, **kept})
    metrics.load_state_dict(state["means"])
    if run.sentinel is not None and "sentinel" in state:
        run.sentinel.load_state_dict(state["sentinel"])
    run.cost = float(state.get("cost", 0.0))
    if len(state["processes"]) == run.processes.world_size or run.processes.main:
        _restore_process(run, state["processes"][run.processes.rank])


def shared_state(run: Run, metrics: EpochMetrics) -> dict[str, Any]:
    """State that all processes share, and the main one's task."""
    return {
        "training_set": dict(run.training_set),
        "task": run.task.state_dict(),
        "optimizer": run.optimizer.state_dict(),
        "schedule": run.schedule.state_dict(),
        "means": metrics.state_dict(),
        **({} if run.sentinel is None else {"sentinel": run.sentinel.state_dict()}),
        "cost": run.cost,
    }


def process_state(run: Run) -> dict[str, Any]:
    """State of this process: its generators, its buffers, such as running statistics, and its task.

    The main process's buffers are saved with the weights, and its task is in :func:`shared_state`.
    """
    main = run.processes.main
    return {
        **states_of_generators(run),
        "buffers": [] if main else [buffer.cpu() for buffer in run.buffers()],
        "task": None if main else run.task.state_dict(),
    }


def states_of_generators(run: Run) -> dict[str, Tensor | None]:
    """States of PyTorch's generators on the host and on the run's GPU, if it has one."""
    on_gpu = run.device.type == "cuda"
    return {"rng": torch.get_rng_state(), "cuda_rng": torch.cuda.get_rng_state(run.device) if on_gpu else None}


def restore_generators(run: Run, states: Mapping[str, Any]) -> None:
    """Restore :func:`states_of_generators`; those of a run on the CPU leave a GPU's generator as it is."""
    torch.set_rng_state(states["rng"])
    if run.device.type == "cuda" and states["cuda_rng"] is not None:
        torch.cuda.set_rng_state(states["cuda_rng"], run.device)


def _restore_process(run: Run, state: dict[str, Any]) -> None:
    restore_generators(run, state)
    for buffer, saved in zip(run.buffers(), state["buffers"], strict=False):
        buffer.copy_(saved)
    if state.get("task") is not None:
        run.task.load_state_dict(state["task"])


def _read_usable(run: Run, path: Path, metrics: EpochMetrics) -> tuple[Path, checkpoint.Saved]:
    """The checkpoint, or the last one before it whose state this run can use."""
    found: tuple[Path, checkpoint.Saved] | None = path, checkpoint.read(path)
    refused: list[str] = []
    while found is not None:
        if (problem := _problem(run, found[1], metrics)) is None:
            if refused:
                warnings.warn(f"{'; '.join(refused)}; falling back to {found[0]}", stacklevel=2)
            return found
        refused.append(f"{found[0]} {problem}")
        found = checkpoint.newest(found[0].parent.parent, before=found[1].meta.step)
    raise checkpoint.CheckpointError(f"no usable checkpoint: {'; '.join(refused)}")


def _problem(run: Run, saved: checkpoint.Saved, metrics: EpochMetrics) -> str | None:
    """Why the run cannot use the state of a checkpoint; None if it can."""
    expected = {**shared_state(run, metrics), "processes": [process_state(run)]}
    if missing := sorted(expected.keys() - saved.state.keys() - OPTIONAL):
        return f"was written by another version of fastadv: it lacks {', '.join(missing)}"
    if run.averages is not None and saved.averaged is None:
        return "has no averaged weights, and ema_decay asks for them"
    found = state_problem(
        saved.state,
        expected,
        step=saved.meta.step,
        processes=saved.meta.processes,
        weights=[weight for group in run.optimizer.param_groups for weight in group["params"]],
        buffers=list(run.buffers()),
        optimizer=run.config.optimizer,
    )
    return None if found is None else f"is damaged: {found}"


def _check_training_set(run: Run, saved: checkpoint.Saved, path: Path) -> None:
    differs = difference(saved.state["training_set"], run.training_set)
    if differs is None:
        differs = other_classes(saved.classes, run.classes)
    if differs is not None:
        raise ValueError(
            f"{path} is from another training set than {run.config.data.root or run.config.data.name}: {differs}. "
            f"Resume with the run's own data (--data DIR if it has moved), or start a new run in another --out"
        )
