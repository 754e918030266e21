"""Trainers on random images in memory, to time iterations without loading data."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch
from torch import nn

from fastadv import PixelSpace, data
from fastadv.distributed import ALONE, Processes, data_parallel
from fastadv.train import AdversarialTask, TrainConfig, Trainer
from fastadv.train.build import attack_options
from fastadv.train.compiled import CompiledOrEager
from fastadv.train.run import Run

CLASSES = 1000


def random_trainer(
    model: nn.Module, config: TrainConfig, *, size: int, device: torch.device, processes: Processes = ALONE
) -> tuple[Trainer, Callable[[], AbstractContextManager[None]]]:
    """A trainer with one iteration per epoch, and a context that skips the exchange of gradients.

    Args:
        model: maps images [m, 3, size, size] to logits [m, CLASSES].
        config: uses m, accumulate, attack, precision, fast, channels_last, compile and capture; the optimiser is
            always SGD.
        size: height and width of the images.
        device: device of the images and the model.
        processes: the processes that train together.
    """
    space = PixelSpace.symmetric()
    count = config.m * processes.world_size * config.accumulate
    pixels = torch.randint(256, (count, 3, size, size), dtype=torch.uint8)
    images = data.ImageSet(pixels, torch.randint(CLASSES, (count,)), tuple(map(str, range(CLASSES))))
    parts = {"rank": processes.rank, "world_size": processes.world_size, "device": device}
    loader = data.TensorLoader(images, config.m, space=space, **parts)  # type: ignore[arg-type]
    layout = torch.channels_last if config.in_channels_last else torch.preserve_format
    model = model.to(device).to(memory_format=layout)  # type: ignore[call-overload]
    parallel = None if processes.alone else data_parallel(model, device, static_graph=False)
    local = nullcontext if parallel is None else parallel.no_sync
    attack = config.attack
    wrapped = parallel or model
    task = AdversarialTask(
        CompiledOrEager(wrapped) if config.compile else wrapped,
        attack=attack.name,
        k=attack.k,
        eps=attack.size,
        space=space,
        seed=0,
        attack_options=attack_options(config),
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    run = Run(
        config=config,
        run_dir=Path(),
        model=model,
        task=task,
        optimizer=optimizer,
        schedule=torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0),
        train_loader=loader,
        test_loader=loader,
        classes=images.classes,
        in_channels=3,
        training_set=data.identity_of(images),
        processes=processes,
        local_backward=local,
    )
    return Trainer(run), local


def step(trainer: Trainer) -> None:
    """One iteration on fresh copies of the same images."""
    trainer.train_step(trainer.train_loader.epoch(0))
