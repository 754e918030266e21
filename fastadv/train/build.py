"""From a TrainConfig to a Trainer."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fastadv import data, devices, models
from fastadv.train import checkpoint
from fastadv.train.config import TrainConfig
from fastadv.train.optim import create_optimizer, create_schedule, depends_on_length
from fastadv.train.task import AdversarialTask
from fastadv.train.trainer import Trainer

_TEST_BATCH = 256  # of images in memory, which are small
_FREE_ON_RESUME = {
    *("epochs", "device", "threads", "checkpoint_every", "keep", "log_every"),
    *("data.root", "data.download", "data.workers", "data.prefetch", "data.on_bad_image"),
}


def create_trainer(config: TrainConfig, run_dir: str | os.PathLike[str], *, resume: bool = False) -> Trainer:
    """A Trainer that is about to begin the run ``config`` in the folder ``run_dir``, or to continue it.

    Sets the seed of PyTorch's default generator, which initial weights and dropout draw from, and the number of CPU
    threads if the configuration has one.

    Args:
        config: the run's.
        run_dir: its folder.
        resume: continue from the last good checkpoint.

    Raises:
        ValueError: a configuration that cannot be built, or that is not the one of the run to be resumed.
        FileExistsError: the folder holds a run, and ``resume`` is False.
        FileNotFoundError: there is nothing to resume, or no data.
        CheckpointError: no checkpoint is usable.
    """
    run_dir = Path(run_dir)
    if resume:
        start = _checkpoint_to_resume(config, run_dir)
    else:
        _check_new(run_dir)
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    trainer = _assemble(config, run_dir)
    if resume:
        trainer.load(start)
    return trainer


def _assemble(config: TrainConfig, run_dir: Path) -> Trainer:
    device = devices.resolve(config.device)
    with _naming("data"):
        images = data.load(config.data.name, config.data.root, config.data.download)
        options: dict[str, Any] = {"space": config.data.pixel_space, "device": device, "seed": config.seed}
        train_loader = data.create_loader(images.train, config.m, config.data, train=True, **options)
        test_batch = _TEST_BATCH if isinstance(images.test, data.ImageSet) else config.m
        test_loader = data.create_loader(images.test, test_batch, config.data, train=False, **options)
    num_classes, in_channels = len(images.train.classes), data.channels_of(images.train)
    with _naming("model"):
        model = models.create(
            config.model.name, num_classes=num_classes, in_channels=in_channels, **config.model.options
        ).to(device)
    with _naming("attack"):
        task = _task(model, config)
    with _naming("optimizer"):
        optimizer = create_optimizer(model, config.optimizer)
    steps = len(train_loader)
    schedule = create_schedule(optimizer, config.schedule, steps_per_epoch=steps, total_steps=config.epochs * steps)
    trainer = Trainer(
        config,
        run_dir,
        model=model,
        task=task,
        optimizer=optimizer,
        schedule=schedule,
        train_loader=train_loader,
        test_loader=test_loader,
        inputs=(num_classes, in_channels),
    )
    if config.data.on_bad_image == "stop":
        _stop_at_bad_images(trainer)
    return trainer


def _stop_at_bad_images(trainer: Trainer) -> None:
    def stop(bad: data.BadImage) -> None:
        data.warn_of_bad_image(bad)
        trainer.request_stop("stopped at an image that cannot be used (data.on_bad_image stop)")

    for loader in (trainer.train_loader, trainer.test_loader):
        if isinstance(loader, data.ImageLoader):
            loader.on_bad_image = stop


def _task(model: nn.Module, config: TrainConfig) -> AdversarialTask:
    return AdversarialTask(
        model,
        attack=config.attack.name,
        k=config.attack.k,
        lambda_=config.attack.lambda_,
        eps=config.attack.size,
        space=config.data.pixel_space,
        start_after=config.attack.start_after,
        label_smoothing=config.label_smoothing,
        seed=config.seed,
        attack_options={"bn": config.attack.bn, **config.attack.options},
    )


@contextmanager
def _naming(section: str) -> Iterator[None]:
    """Say which section of the configuration a value was that a builder refused."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise ValueError(f"{section}: {error}") from error


def _check_new(run_dir: Path) -> None:
    log = run_dir / "log.jsonl"  # empty if the run ended before its first checkpoint
    if any((run_dir / "checkpoints").glob("step-*")) or (log.exists() and log.stat().st_size > 0):
        raise FileExistsError(f"{run_dir} already holds a run: continue it with --resume, or choose another --out")


def _checkpoint_to_resume(config: TrainConfig, run_dir: Path) -> Path:
    start = checkpoint.latest(run_dir)
    if start is None:
        raise FileNotFoundError(f"{run_dir} has no checkpoint to resume from; leave --resume out to begin a run there")
    stored, wanted = _flat(asdict(checkpoint.load_config(start))), _flat(asdict(config))
    free = _FREE_ON_RESUME - ({"epochs"} if depends_on_length(config.schedule) else set())
    differing = [name for name in stored if stored[name] != wanted[name] and name not in free]
    if differing:
        changes = "; ".join(f"{name} was {stored[name]!r} and is now {wanted[name]!r}" for name in differing)
        why = f"; a {config.schedule.name} schedule depends on the number of epochs" if "epochs" in differing else ""
        raise ValueError(f"{run_dir} cannot be resumed with another configuration: {changes}{why}")
    return start


def _flat(values: dict[str, Any], path: str = "") -> dict[str, Any]:
    """Dotted names of all fields; ``options`` count as one."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        nested = isinstance(value, dict) and name != "options"
        flat.update(_flat(value, f"{path}{name}.") if nested else {f"{path}{name}": value})
    return flat
