"""Check that a network is measured on the classes that it was trained on."""

from __future__ import annotations

from fastadv import data
from fastadv.train.checkpoint import LoadedModel
from fastadv.utils.text import counted

CLASSES_OF_FILES = (
    "; the classes of images in files are the folders in val/, or the labels of shards, unless classes.txt beside val/ "
    "names them all, one per line"
)


def check_classes(name: str, run: LoadedModel, images: data.ImageSet | data.ImageSource, where: str) -> None:
    """Check that images have the classes that a network was trained on, in the same order.

    Args:
        name: the network's row in the results, for messages.
        run: the network.
        images: the images to measure it on.
        where: where the images are, for messages.

    Raises:
        ValueError: if they have other classes; names the first ones that differ.
    """
    if len(run.classes) != len(images.classes):
        hint = "" if isinstance(images, data.ImageSet) else CLASSES_OF_FILES
        raise ValueError(
            f"{name} has {counted(len(run.classes), 'class')}, and {where} has {len(images.classes)}: --data must hold "
            f"the classes that it was trained on{hint}"
        )
    if (differ := data.other_classes(run.classes, images.classes)) is not None:
        raise ValueError(
            f"{name} was trained on other classes than those of {where}: {differ}. --data must hold the classes that "
            f"it was trained on, by the same names (of folders, or in classes.txt) and in the same order"
        )
