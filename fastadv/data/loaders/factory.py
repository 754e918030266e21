"""Create the loader for some images and a configuration."""

from __future__ import annotations

import os
from importlib import import_module

import torch

from fastadv.data.config import DataConfig, LoaderName
from fastadv.data.in_memory.image_set import ImageSet
from fastadv.data.loaders.base import CHANNELS, ImageLoader
from fastadv.data.loaders.dali_loader import DaliLoader
from fastadv.data.loaders.protocol import Loader
from fastadv.data.loaders.tensor_loader import TensorLoader
from fastadv.data.loaders.torchvision_loader import TorchvisionLoader
from fastadv.data.sources.base import ImageSource
from fastadv.pixels import PixelSpace
from fastadv.utils.log import logger
from fastadv.utils.optional_deps import require

_KINDS: dict[str, type[ImageLoader]] = {"dali": DaliLoader, "torchvision": TorchvisionLoader}
_PACKAGES = {"dali": "nvidia.dali", "torchvision": "torchvision"}


def create_loader(
    images: ImageSet | ImageSource,
    batch_size: int,
    config: DataConfig,
    *,
    space: PixelSpace,
    train: bool,
    device: torch.device,
    seed: int = 0,
    rank: int = 0,
    world_size: int = 1,
) -> Loader:
    """Create a loader of one process's share of some images.

    Args:
        images: images in memory or in files.
        batch_size: m, examples per batch of this process.
        config: loader and preprocessing.
        space: the model's input space.
        train: shuffle, augment and drop an incomplete last batch; otherwise yield each image once, in order.
        device: device of the batches.
        seed: fixes order and augmentation, the same for all processes.
        rank: number of this process.
        world_size: number of processes.

    Raises:
        ValueError: if an option is out of range, or there are too few images.
        ModuleNotFoundError: if the configured loader needs a package that is not installed.
    """
    if isinstance(images, ImageSet):
        return TensorLoader(
            images,
            batch_size,
            space=space,
            seed=seed,
            shuffle=train,
            drop_last=train,
            crop_padding=config.crop_padding if train else 0,
            flip=config.flip and train,
            rank=rank,
            world_size=world_size,
            device=device,
        )
    name = resolve_loader(config.loader, option="data.loader", say=train and rank == 0)
    return _KINDS[name](
        images,
        batch_size,
        space=space,
        train=train,
        preprocessing=config.preprocessing,
        seed=seed,
        rank=rank,
        world_size=world_size,
        device=device,
        workers=cores() if config.workers is None else config.workers,
        prefetch=config.prefetch,
    )


def shape_of(images: ImageSet | ImageSource, config: DataConfig) -> tuple[int, int, int]:
    """[C, H, W] of an image as loaders yield it."""
    if isinstance(images, ImageSet):
        _, channels, height, width = images.images.shape
        return channels, height, width
    return CHANNELS, config.size, config.size


def resolve_loader(name: LoaderName, *, option: str, say: bool) -> LoaderName:
    """Resolve "auto": DALI's loader if it is installed, otherwise torchvision's.

    Args:
        name: auto, dali or torchvision.
        option: name of the option, for the log message.
        say: whether to log what "auto" resolves to.
    """
    if name != "auto":
        return name
    try:
        version = require("nvidia.dali", extra="dali").__version__
        name, why = "dali", f"DALI {version} is installed"
    except ModuleNotFoundError as error:
        name, why = "torchvision", f"the faster DALI is not installed: {error}"
    if say:
        logger.info("%s auto: %s, because %s", option, name, why)
    return name


def loader_version(loader: ImageLoader) -> str:
    """Name and version of the decoding library, as in "dali 2.4.0"."""
    name = next(name for name, kind in _KINDS.items() if isinstance(loader, kind))
    return f"{name} {import_module(_PACKAGES[name]).__version__}"


def cores() -> int:
    """Cores available to this process, divided by the number of processes that torchrun started on this machine."""
    return max(1, len(os.sched_getaffinity(0)) // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
