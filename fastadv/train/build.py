"""From a TrainConfig to a Trainer."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from fastadv import data, devices, models
from fastadv.extras import require
from fastadv.models.trial import check_takes
from fastadv.train import checkpoint
from fastadv.train.accuracy import chance
from fastadv.train.compiled import CompiledOrEager
from fastadv.train.config import TrainConfig
from fastadv.train.distributed import ALONE, Processes, data_parallel, device_name, on_all, on_main, seed_draws
from fastadv.train.fast import fast_task
from fastadv.train.free import FreeTask
from fastadv.train.interfaces import Averages, Loader, Task
from fastadv.train.mistakes import check_used
from fastadv.train.optim import create_optimizer, create_schedule, depends_on_length
from fastadv.train.parsing import flat
from fastadv.train.replays import Replayed
from fastadv.train.task import AdversarialTask
from fastadv.train.trainer import Trainer

_TEST_BATCH = 256  # of images in memory, which are small
_FREE_ON_RESUME = {
    *("epochs", "accumulate", "device", "threads", "checkpoint_every", "keep", "log_every"),
    *("data.root", "data.download", "data.workers", "data.prefetch", "data.on_bad_image"),
    # What computes the same up to rounding.
    *("fast", "channels_last", "compile"),
    *(f"attack.options.{name}" for name in ("fast", "fold_bn", "compile", "capture")),
}
_ABSENT = object()


def create_trainer(
    config: TrainConfig,
    run_dir: str | os.PathLike[str],
    *,
    resume: bool | Literal["auto"] = False,
    processes: Processes = ALONE,
) -> Trainer:
    """A Trainer that is about to begin the run ``config`` in the folder ``run_dir``, or to continue it.

    Sets the seed of PyTorch's default generator, which initial weights and dropout draw from, and the number of CPU
    threads if the configuration has one.

    Args:
        config: the run's.
        run_dir: its folder; of several processes, only the main one uses it.
        resume: continue from the last good checkpoint; "auto" begins the run if there is none.
        processes: that train together; each calls this function.

    Raises:
        ValueError: a configuration that cannot be built, or that is not the one of the run to be resumed.
        FileExistsError: the folder holds a run, and ``resume`` is False.
        FileNotFoundError: there is nothing to resume, or no data.
        CheckpointError: no checkpoint is usable.
        FailedElsewhere: one of these, on another process.

    Warns:
        UserWarning: a run that goes on with another number of processes than it had, or a space that the network is not
            made for.
    """
    run_dir = Path(run_dir)
    config, start, remark = on_main(processes, lambda: _start(config, run_dir, resume, processes))
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    trainer = on_all(processes, lambda: _assemble(config, run_dir, processes))
    seed_draws(config.seed, processes)
    if start is not None:
        trainer.load(start)
    # Warned of last: an error leaves nothing to warn of.
    if config.model.name == "inception_v3" and config.data.space != "symmetric" and processes.main:
        warnings.warn(f"inception_v3 is made for data.space symmetric, got {config.data.space}", stacklevel=2)
    if remark is not None and processes.main:
        warnings.warn(remark, stacklevel=2)
    return trainer


def _assemble(config: TrainConfig, run_dir: Path, processes: Processes) -> Trainer:
    device = devices.resolve(device_name(config.device, processes))
    if device.type == "cuda":
        torch.cuda.set_device(device)  # NCCL and the operators take the current one
    with _naming("data"):
        images = _images(config, processes)
        train_loader, test_loader = _loaders(images, config, device, processes)
        classes, shape = images.train.classes, data.shape_of(images.train, config.data)
        if len(train_loader) < config.accumulate:
            raise ValueError(f"accumulate={config.accumulate} is more than the {len(train_loader)} minibatches")
        if config.attack.training == "free":
            train_loader = Replayed(train_loader, config.attack.replays, together=config.accumulate)
    with _naming("model"):
        model = models.create(config.model.name, num_classes=len(classes), in_channels=shape[0], **config.model.options)
        model = _placed(model, config, device, processes)
        _check_fits(model, config, shape)
        averages = _averages(model, config)
        wrapped, parallel = _wrapped(model, config, device, processes)
    with _naming("attack"):
        task = _task(wrapped, config)
    with _naming("optimizer"):
        optimizer = create_optimizer(model, config.optimizer)
    steps = len(train_loader) // config.accumulate
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
        classes=classes,
        in_channels=shape[0],
        training_set=data.identity_of(images.train),
        chance=chance(images.test.labels),
        processes=processes,
        local_backward=nullcontext if parallel is None else parallel.no_sync,
        averages=averages,
    )
    if config.data.on_bad_image == "stop":
        _stop_at_bad_images(trainer)
    return trainer


def _images(config: TrainConfig, processes: Processes) -> data.ImageData:
    source = config.data.name, config.data.root

    def download() -> None:
        data.load(*source, True)

    if config.data.download:
        on_main(processes, download)
    return data.load(*source, False)


def _loaders(
    images: data.ImageData, config: TrainConfig, device: torch.device, processes: Processes
) -> tuple[Loader, Loader]:
    """Loaders of this process's share of the training and of the test images."""
    options: dict[str, Any] = {
        **{"space": config.data.pixel_space, "seed": config.seed, "device": device},
        **{"rank": processes.rank, "world_size": processes.world_size},
    }
    train_loader = data.create_loader(images.train, config.m, config.data, train=True, **options)
    test_batch = _TEST_BATCH if isinstance(images.test, data.ImageSet) else config.m
    test_loader = data.create_loader(images.test, test_batch, config.data, train=False, **options)
    return train_loader, test_loader


def _stop_at_bad_images(trainer: Trainer) -> None:
    check = data.check_command(str(trainer.config.data.root))

    def stop(bad: data.BadImage) -> None:
        data.warn_of_bad_image(bad)
        trainer.request_stop(
            f"{bad.name} cannot be used (data.on_bad_image stop); {check} finds all such files and has "
            f"training leave them out"
        )

    train_loader = trainer.train_loader
    for loader in (train_loader.loader if isinstance(train_loader, Replayed) else train_loader, trainer.test_loader):
        if isinstance(loader, data.ImageLoader):
            loader.on_bad_image = stop


def _placed(model: nn.Module, config: TrainConfig, device: torch.device, processes: Processes) -> nn.Module:
    """The model where, and as, it is trained."""
    if config.sync_bn and not processes.alone:
        if device.type == "cpu":
            raise ValueError("sync_bn needs GPUs: PyTorch has no SyncBatchNorm for the CPU")
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
    layout = torch.channels_last if config.in_channels_last else torch.preserve_format
    placed: nn.Module = model.to(device).to(memory_format=layout)  # type: ignore[call-overload]
    return placed


def _check_fits(model: nn.Module, config: TrainConfig, shape: tuple[int, int, int]) -> None:
    """Refuse what would end in the first iteration, images [C, H, W] that are too small for the network, say."""
    try:
        check_takes(model, shape, count=min(2, config.m))
    except ValueError as error:
        size = "data.size or " if config.data.name == "imagenet" else ""
        raise ValueError(f"{config.model.name}: {error}; choose another {size}model.name, or model.options") from error


def _wrapped(
    model: nn.Module, config: TrainConfig, device: torch.device, processes: Processes
) -> tuple[nn.Module, DistributedDataParallel | None]:
    """The model as the training pass goes through it, and the part of that which averages gradients, if any does."""
    wrapped, parallel = model, None
    if not processes.alone:
        parallel = wrapped = data_parallel(model, device, static_graph=config.accumulate == 1 and not config.compile)
    # Outside of DistributedDataParallel, torch.compile cuts its graph where a bucket of gradients is full.
    return CompiledOrEager(wrapped) if config.compile else wrapped, parallel


def _averages(model: nn.Module, config: TrainConfig) -> Averages | None:
    if config.ema_decay is None:
        return None
    averages: Averages = require("timm.utils", extra="train").ModelEmaV3(model, decay=config.ema_decay, use_warmup=True)
    return averages


def _task(model: nn.Module, config: TrainConfig) -> Task:
    attack = config.attack
    options: dict[str, Any] = {
        **{"space": config.data.pixel_space, "eps": attack.size},
        **{"label_smoothing": config.label_smoothing, "aux_weight": config.aux_weight},
    }
    if attack.training == "free":
        return FreeTask(model, accumulate=config.accumulate, **attack.options, **options)
    options["start_after"] = attack.start_after * config.accumulate  # the task counts minibatches
    options["seed"] = config.seed
    attack_options = {"bn": attack.bn, "fast": config.fast, **attack.options}
    if attack.training == "fast":
        alpha = attack_options.pop("alpha", None)
        return fast_task(model, alpha=alpha, attack_options=attack_options, **options)
    return AdversarialTask(
        model,
        attack=attack.name,
        k=attack.k,
        lambda_=attack.lambda_,
        attack_options=attack_options,
        **options,
    )


@contextmanager
def _naming(section: str) -> Iterator[None]:
    """Say which section of the configuration a value was that a builder refused."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise ValueError(f"{section}: {error}") from error


def _start(
    config: TrainConfig, run_dir: Path, resume: bool | Literal["auto"], processes: Processes
) -> tuple[TrainConfig, Path | None, str | None]:
    """The run's configuration, the checkpoint that it goes on from, and what to warn of once it does."""
    if not resume:
        _check_new(run_dir)
    start = checkpoint.latest(run_dir) if resume else None
    if start is None and resume is not True:
        check_used(config.data)
        return config, None, None
    if start is None:
        raise FileNotFoundError(f"{run_dir} has no checkpoint to resume from; leave --resume out to begin a run there")
    stored, before = checkpoint.load_config(start), checkpoint.read_meta(start).processes
    config = _with_as_many_examples(config, stored, before, processes.world_size)
    _check_same(config, stored, run_dir)
    if config.data != stored.data:
        check_used(config.data)
    if processes.world_size == before:
        return config, start, None
    remark = (
        f"this run goes on with {processes.world_size} processes instead of {before}, and accumulate "
        f"{config.accumulate} instead of {stored.accumulate}: the examples of each iteration stay the same, but "
        f"dropout draws anew, each process goes on from the main one's running statistics (in free training also "
        f"from its perturbations), and sums differ in their last bits"
    )
    return config, start, remark


def _check_new(run_dir: Path) -> None:
    log = run_dir / "log.jsonl"  # empty if the run ended before its first checkpoint
    if any((run_dir / "checkpoints").glob("step-*")) or (log.exists() and log.stat().st_size > 0):
        raise FileExistsError(f"{run_dir} already holds a run: continue it with --resume, or choose another --out")


def _with_as_many_examples(config: TrainConfig, stored: TrainConfig, before: int, now: int) -> TrainConfig:
    """The configuration with as many minibatches in an iteration as ``stored`` had, for ``now`` processes.

    Raises:
        ValueError: that is not possible, or not what ``config`` asks for.
    """
    wanted = before * stored.accumulate
    if now != before and config.accumulate == stored.accumulate and wanted % now == 0:
        config = replace(config, accumulate=wanted // now)
    if now * config.accumulate != wanted:
        fitting = ", ".join(f"{n} with {wanted // n}" for n in range(1, wanted + 1) if wanted % n == 0)
        raise ValueError(
            f"an iteration of this run takes {wanted} minibatches, {stored.accumulate} (accumulate) on each of "
            f"{before} processes; with {now} processes and accumulate {config.accumulate} it would be "
            f"{now * config.accumulate}, and a run keeps to what its learning rate was chosen for. Numbers of "
            f"processes that fit, with their accumulate: {fitting}"
        )
    return config


def _check_same(config: TrainConfig, stored_config: TrainConfig, run_dir: Path) -> None:
    stored, wanted = flat(asdict(stored_config)), flat(asdict(config))
    free = _FREE_ON_RESUME - ({"epochs"} if depends_on_length(config.schedule) else set())
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
