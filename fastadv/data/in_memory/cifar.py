"""CIFAR-10, read by torchvision."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from fastadv.data.in_memory.download import download_into, missing_files
from fastadv.data.in_memory.image_set import ImageData, ImageSet
from fastadv.utils.optional_deps import require


def load_cifar10(root: Path, download: bool) -> ImageData:
    """Load 50,000 train and 10,000 test images of 32x32 pixels from ``root/cifar-10-batches-py``."""
    datasets = require("torchvision.datasets", extra="train")
    if download:
        download_into(root, "cifar10", datasets.CIFAR10)
    _check_files(root / datasets.CIFAR10.base_folder, datasets)
    return ImageData(
        train=_image_set(datasets.CIFAR10(root, train=True)),
        test=_image_set(datasets.CIFAR10(root, train=False)),
    )


def _check_files(folder: Path, datasets: Any) -> None:
    """Raise an error that names missing or damaged files: torchvision does not."""
    cifar10 = datasets.CIFAR10
    checksums = dict([*cifar10.train_list, *cifar10.test_list, (cifar10.meta["filename"], cifar10.meta["md5"])])
    lacking = [file for file in checksums if not (folder / file).is_file()]
    if lacking:
        raise missing_files("cifar10", list(checksums), {folder: lacking})
    for file, md5 in checksums.items():
        if not datasets.utils.check_integrity(folder / file, md5):
            raise ValueError(
                f"{folder / file} is damaged: its MD5 is not {md5}; download it again with download=True (--download)"
            )


def _image_set(dataset: Any) -> ImageSet:
    images = torch.from_numpy(dataset.data).permute(0, 3, 1, 2).contiguous()  # [N, 3, 32, 32] from [N, 32, 32, 3]
    return ImageSet(images, torch.tensor(dataset.targets), tuple(dataset.classes))
