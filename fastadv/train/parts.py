"""What each process creates for itself before it joins the others: images, loaders and network.

:func:`create_parts` waits for no other process, so that one that fails can tell the others.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from fastadv import data, models
from fastadv.data.loaders.protocol import Loader
from fastadv.distributed import Processes, device_name, gathered, on_main
from fastadv.models.check_input import check_accepts
from fastadv.train.config import TrainConfig
from fastadv.utils import devices

_TEST_BATCH = 256  # for images in memory, which are small


@dataclass(frozen=True, kw_only=True)
class Parts:
    """The parts of one process.

    Args:
        device: device to train on.
        images: the whole data set; each process reads its share.
        train_loader: loads this process's share of the training images.
        test_loader: loads this process's share of the test images.
        shape: [C, H, W] of an image.
        model: the network on ``device``; all processes draw the same weights.
        training_set: identifies the training set; see :func:`fastadv.data.identity_of`.
    """

    device: torch.device
    images: data.ImageData
    train_loader: Loader
    test_loader: Loader
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
        train_loader, test_loader = _loaders(images, config, device, processes)
        shape = data.shape_of(images.train, config.data)
        if len(train_loader) < config.accumulate:
            raise ValueError(f"accumulate={config.accumulate} is more than the {len(train_loader)} minibatches")
    with naming("model"):
        model = models.create(
            config.model.name, num_classes=len(images.train.classes), in_channels=shape[0], **config.model.options
        )
        model = _place(model, config, shape, device, processes)
    return Parts(
        device=device,
        images=images,
        train_loader=train_loader,
        test_loader=test_loader,
        shape=shape,
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
    model: nn.Module, config: TrainConfig, shape: tuple[int, int, int], device: torch.device, processes: Processes
) -> nn.Module:
    """Move the model to the device, in the memory format and with the BatchNorm that it is trained with."""
    placed = in_layout(model.to(device), config)
    _check_fits(placed, config, shape)
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


@contextmanager
def naming(section: str) -> Iterator[None]:
    """Prefix errors in the block with the section of the configuration that they are about."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise ValueError(f"{section}: {error}") from error
