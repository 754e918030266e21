"""A plain folder of images, ``CLASS/IMAGE``, without splits: for evaluation."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import torch

from fastadv.data.sources.class_names import CLASSES_FILE, named_classes, numeric_names_warning
from fastadv.data.sources.folder import SPLITS, ImageFolder, scan_class_folders
from fastadv.utils.optional_deps import require
from fastadv.utils.stacklevel import user_stacklevel


def load_folder(root: Path, classes: Sequence[str] = ()) -> ImageFolder:
    """List the images of a folder whose subfolders are classes.

    An image's label is the place of its folder among the classes: those that ``root/classes.txt`` names, one per line,
    else ``classes``, else the folders, sorted by name. The folders may be some of the classes only.

    Args:
        root: the folder.
        classes: names of all classes in order, if there is no ``classes.txt``.

    Raises:
        FileNotFoundError: if there is no such folder.
        OSError: if a folder cannot be read.
        ValueError: if it has no class folders, one of them has no image or is not among the classes, or it holds
            ``train/`` or ``val/`` and nothing else.

    Warns:
        UserWarning: if the folders are numbers whose alphabetical order is not the numeric one, and nothing else says
            their order.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"{root} is not a folder: expected one that holds CLASS/IMAGE")
    classes = named_classes(root) or classes
    found = scan_class_folders(root, classes, root / CLASSES_FILE)
    folders = class_folders(found)
    if not classes and numeric_names_warning(folders) is not None:
        warnings.warn(
            f"{root}: the class folders are numbers, and classes are sorted alphabetically, 10 before 2. For weights "
            f"with numeric order, list all classes in that order in {root / CLASSES_FILE}, one per line",
            stacklevel=user_stacklevel(),
        )
    if set(folders) <= set(SPLITS):
        raise ValueError(
            f"{root} holds {' and '.join(f'{name}/' for name in sorted(folders))}, which is the layout of the data set "
            f"imagenet: use that, or one of these folders as a plain folder"
        )
    return found


def class_folders(images: ImageFolder) -> list[str]:
    """Names of the class folders that hold images, sorted: all classes, or some of them."""
    return sorted(images.classes[label] for label in set(images.labels.tolist()))


def with_classes(images: ImageFolder, classes: Sequence[str]) -> ImageFolder:
    """The same images, labelled with the places of their folders among ``classes``, which include them all."""
    place = {name: number for number, name in enumerate(classes)}
    moved = torch.tensor([place.get(name, -1) for name in images.classes])  # [K]
    return replace(images, labels=moved[images.labels], classes=tuple(classes))


@cache
def imagenet_ids() -> tuple[str, ...]:
    """The WordNet ids of ImageNet's 1,000 classes, such as n01440764, in the order of its labels; from timm.

    Raises:
        ModuleNotFoundError: if timm is not installed.
    """
    return tuple(require("timm.data", extra="train").ImageNetInfo("imagenet1k").label_names())


def are_imagenet_ids(names: Iterable[str]) -> bool:
    """True if all names are WordNet ids of ImageNet's 1,000 classes."""
    return set(names) <= set(imagenet_ids())
