"""What each process creates for itself before it joins the others: images, loaders and network.

:func:`create_parts` waits for no other process, so that one that fails can tell the others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from fastadv import data, models
from fastadv.data.loaders.protocol import Loader
from fastadv.distributed import Processes, device_name, gathered, on_main
from fastadv.models.check_input import check_accepts
from fastadv.train.checkpoint_content import CheckpointError
from fastadv.train.config import TrainConfig
from fastadv.utils import devices

_TEST_BATCH = 256  # for images in memory, which are small


@dataclass(frozen=True, kw_only=True)
class Parts:
    """The parts of one process.

    Args:
        device: device to train on.
        images: the whole data set; each process reads its share.
        loaders: in each phase, a loader of this process's share of the training images, and one of the test images.
        shape: [C, H, W] of an image; in the first phase.
        model: the network on ``device``; all processes draw the same weights.
        training_set: identifies the training set; see :func:`fastadv.data.identity_of`.
    """

    device: torch.device
    images: data.ImageData
    loaders: list[tuple[Loader, Loader]]
    shape: tuple[int, int, int]
    model: nn.Module
    training_set: dict[str, Any]


def download(config: TrainConfig) -> None:
    """Download missing images if the configuration asks for it; call it on one process."""
    if config.data.download:
        with naming("data"):
            data.load(config.data.name, config.data.root, True)


def create_parts(config: TrainConfig, processes: Processes) -> Parts:
    """Create this process's parts.

    Raises:
        ValueError: if the configuration cannot be built; the message begins with its section.
        OSError: if the data cannot be read.
    """
    device = devices.resolve(device_name(config.device, processes))
    if device.type == "cuda":
        torch.cuda.set_device(device)  # NCCL and the operators take the current one
    with naming("data"):
        images = data.load(config.data.name, config.data.root, False)
        if len(images.train.classes) == 1:
            raise ValueError(f"{config.data.name} has one class, {images.train.classes[0]}: classification needs two")
        loaders = _loaders_of_phases(images, config, device, processes)
        shapes = [data.shape_of(images.train, phase.data) for phase in config.in_phases()]
    with naming("model"):
        model = models.create(
            config.model.name, num_classes=len(images.train.classes), in_channels=shapes[0][0], **config.model.options
        )
        model = _place(model, config, shapes, device, processes)
    return Parts(
        device=device,
        images=images,
        loaders=loaders,
        shape=shapes[0],
        model=model,
        training_set=data.identity_of(images.train),
    )


def check_same_images(parts: Parts, processes: Processes) -> None:
    """Check that all processes read the same data set: otherwise their shares would not be parts of one.

    Raises:
        ValueError: if they do not; on the main process.
        FailedElsewhere: the same on the others.
    """
    if processes.alone:
        return
    images = parts.images
    mine = {
        "training": (parts.training_set, images.train.classes, _left_out(images.train)),
        "test": (data.identity_of(images.test), images.test.classes, _left_out(images.test)),
    }
    all_sets = gathered(processes, mine)

    def check() -> None:
        for rank, sets in enumerate(all_sets):
            for name, found in sets.items():
                if found != all_sets[0][name]:
                    counts = f"{found[0]['images']} images and {all_sets[0][name][0]['images']}"
                    raise ValueError(
                        f"data: the {name} set of process {rank} differs from that of process 0 ({counts}): all need "
                        f"the same files, names and labels, and the same manifest if there is one"
                    )

    on_main(processes, check)


def _left_out(images: data.ImageSet | data.ImageSource) -> list[int]:
    return [] if isinstance(images, data.ImageSet) else sorted(images.left_out)


def _loaders_of_phases(
    images: data.ImageData, config: TrainConfig, device: torch.device, processes: Processes
) -> list[tuple[Loader, Loader]]:
    """The loaders of each phase; phases that load the same minibatches share them, and so their memory."""
    phases = config.in_phases()
    created: list[tuple[Loader, Loader]] = []
    for number, phase in enumerate(phases):
        before = next((i for i in range(number) if (phases[i].data, phases[i].m) == (phase.data, phase.m)), None)
        with naming_phase(config, number):
            loaders = _loaders(images, phase, device, processes) if before is None else created[before]
            if len(loaders[0]) < config.accumulate:
                raise ValueError(f"accumulate={config.accumulate} is more than the {len(loaders[0])} minibatches")
        created.append(loaders)
    return created


def _loaders(
    images: data.ImageData, config: TrainConfig, device: torch.device, processes: Processes
) -> tuple[Loader, Loader]:
    """Create loaders of this process's share of the training and test images."""
    options: dict[str, Any] = {
        **{"space": config.data.pixel_space, "seed": config.seed, "device": device},
        **{"rank": processes.rank, "world_size": processes.world_size},
    }
    train_loader = data.create_loader(images.train, config.images_per_minibatch, config.data, train=True, **options)
    test_batch = _TEST_BATCH if isinstance(images.test, data.ImageSet) else config.m
    test_loader = data.create_loader(images.test, test_batch, config.data, train=False, **options)
    return train_loader, test_loader


def _place(
    model: nn.Module,
    config: TrainConfig,
    shapes: Sequence[tuple[int, int, int]],
    device: torch.device,
    processes: Processes,
) -> nn.Module:
    """Move the model to the device, in the memory format and with the BatchNorm that it is trained with."""
    placed = in_layout(model.to(device), config)
    for number, phase in enumerate(config.in_phases()):
        if shapes[number] not in shapes[:number]:
            with naming_phase(config, number):
                _check_fits(placed, phase, shapes[number])
    if config.sync_bn:
        _check_sync_bn(config, device)
    if config.sync_bn and not processes.alone:
        placed = nn.SyncBatchNorm.convert_sync_batchnorm(placed)  # type: ignore[no-untyped-call]
    return placed


def in_layout(model: nn.Module, config: TrainConfig) -> nn.Module:
    """The model in the memory format that it is trained in."""
    layout = torch.channels_last if config.in_channels_last else torch.preserve_format
    placed: nn.Module = model.to(memory_format=layout)  # type: ignore[call-overload]
    return placed


def _check_fits(model: nn.Module, config: TrainConfig, shape: tuple[int, int, int]) -> None:
    """Fail before the first iteration does, for instance because images [C, H, W] are too small for the network."""
    try:
        check_accepts(model, shape, count=min(2, config.m))
    except ValueError as error:
        size = "data.size or " if config.data.name == "imagenet" else ""
        raise ValueError(f"{config.model.name}: {error}; choose another {size}model.name, or model.options") from error


def _check_sync_bn(config: TrainConfig, device: torch.device) -> None:
    if config.attack.bn == "batch":
        raise ValueError("sync_bn needs attack.bn eval: by batch, each generation would wait for all processes")
    if config.attack.training == "paired" and config.compile:
        raise ValueError("sync_bn does not go with compile in paired training: generation would wait for all processes")
    if device.type == "cpu":
        raise ValueError("sync_bn needs GPUs: PyTorch has no SyncBatchNorm for the CPU")


def naming_phase(config: TrainConfig, number: int) -> AbstractContextManager[None]:
    """:func:`naming` for a phase, in a configuration that has phases."""
    return naming(f"phases[{number}]") if config.phases else nullcontext()


@contextmanager
def naming_run(option: str) -> Iterator[None]:
    """Prefix errors about a run or checkpoint that cannot be loaded with the option that names it."""
    try:
        yield
    except (FileNotFoundError, CheckpointError) as error:
        raise type(error)(f"{option}: {error}") from error


@contextmanager
def naming(section: str) -> Iterator[None]:
    """Prefix errors in the block with the section of the configuration that they are about."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise ValueError(f"{section}: {error}") from error
