"""Load data sets by name."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

from fastadv.data.in_memory.cifar import load_cifar10
from fastadv.data.in_memory.digits import load_digits
from fastadv.data.in_memory.download import REMEDIES
from fastadv.data.in_memory.image_set import ImageData, ImageSet
from fastadv.data.in_memory.mnist import load_mnist_like
from fastadv.data.sources.base import ImageSource
from fastadv.data.sources.folder import SPLITS, expected
from fastadv.data.sources.plain_folder import load_folder
from fastadv.data.sources.scan import load_splits
from fastadv.utils.suggestions import did_you_mean, nearest


def _load_files(root: Path, download: bool) -> ImageData:
    """Load images in files, without those that the manifest leaves out; see :func:`load_splits`."""
    found = load_splits(root, SPLITS, download)
    return ImageData(found["train"], found["val"])


FOLDER = "folder"  # a data set for evaluation only
_EMBEDDED: dict[str, Callable[[], ImageData]] = {"digits": load_digits}
_FROM_FOLDER: dict[str, Callable[[Path, bool], ImageData]] = {
    "mnist": partial(load_mnist_like, "mnist", "MNIST"),
    "fashion_mnist": partial(load_mnist_like, "fashion_mnist", "FashionMNIST"),
    "cifar10": load_cifar10,
    "imagenet": _load_files,
}


def names() -> list[str]:
    """Names of the data sets that :func:`load` accepts."""
    return [*_EMBEDDED, *_FROM_FOLDER]


def load(name: str, root: str | os.PathLike[str] | None = None, download: bool = False) -> ImageData:
    """Load a data set into memory; for ``imagenet``, list its files.

    Args:
        name: one of :func:`names`.
        root: the folder that holds the files. ``digits`` comes with scikit-learn and uses neither ``root`` nor
            ``download``. ``mnist`` and ``fashion_mnist`` are found in torchvision's layout (``MNIST/raw``,
            ``FashionMNIST/raw``) or as the four IDX files directly in the folder, plain or ``.gz``; ``cifar10`` in
            ``cifar-10-batches-py``. ``imagenet`` is any set of image files in ``train/CLASS/IMAGE`` and
            ``val/CLASS/IMAGE``, or in shards; see :func:`fastadv.data.scan`.
        download: download the files into ``root`` if they are not there.

    Raises:
        ValueError: if the name is unknown, the data set needs a folder, a file is corrupt or belongs to another data
            set, folders of images are not laid out correctly, or ``download`` is set for ``imagenet``.
        FileNotFoundError: if the folder lacks files and ``download`` is False.
        OSError: if the download failed.
        ModuleNotFoundError: if scikit-learn or torchvision is not installed.

    Warns:
        UserWarning: if ``root`` or ``download`` is given for a data set that uses neither, or a manifest leaves out
            images.
    """
    if name in _EMBEDDED:
        if root is not None or download:
            warnings.warn(f"{name} is part of scikit-learn: root (--data) and download are not used", stacklevel=2)
        return _EMBEDDED[name]()
    if name not in _FROM_FOLDER:
        raise ValueError(
            f"unknown data set {name!r}{did_you_mean(nearest(name, names()))}; accepted: {', '.join(names())}. "
            f"imagenet with --data DIR (root) is any set of image files: {expected()}"
        )
    if root is None:
        remedies = f"Pass it with --data DIR (root); it must hold {expected()}" if name == "imagenet" else REMEDIES
        raise ValueError(f"{name} is read from a folder. {remedies}")
    return _FROM_FOLDER[name](Path(root).expanduser(), download)


def load_test(name: str, root: str | os.PathLike[str] | None = None, download: bool = False) -> ImageSet | ImageSource:
    """Load the test images of a data set; for ``imagenet``, read only ``val/``.

    Args:
        name: see :func:`load`; or ``folder`` for image files in ``root/CLASS/IMAGE``, without splits.
        root: see :func:`load`.
        download: see :func:`load`.

    Raises:
        ValueError: see :func:`load`, also for other errors and for warnings.
    """
    if name == FOLDER:
        if root is None or download:
            raise ValueError(f"{FOLDER} is read from a folder that holds CLASS/IMAGE: pass it with --data DIR (root)")
        return load_folder(Path(root).expanduser())
    if name == "imagenet" and root is not None:
        return load_splits(Path(root).expanduser(), ("val",), download)["val"]
    return load(name, root, download).test
