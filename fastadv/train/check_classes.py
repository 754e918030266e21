"""A trained network is only measured on the classes that it was trained on."""

from __future__ import annotations

from fastadv import data
from fastadv.train.checkpoint import LoadedModel

CLASSES_OF_FILES = (
    "; the classes of images in files are the folders in val/, or the labels of shards, unless classes.txt beside val/ "
    "names them all, a line each"
)


def check_classes(name: str, run: LoadedModel, images: data.ImageSet | data.ImageSource, where: str) -> None:
    """Refuse images of other classes than a run was trained on, or of the same in another order.

    Args:
        name: of its row, for messages.
        run: the network.
        images: what it is to be measured on.
        where: they are, for messages.

    Raises:
        ValueError: that, with the first classes that differ.
    """
    if len(run.classes) != len(images.classes):
        whence = "" if isinstance(images, data.ImageSet) else CLASSES_OF_FILES
        raise ValueError(
            f"{name} tells {len(run.classes)} classes apart, and {where} has {len(images.classes)}: --data must hold "
            f"the classes that it was trained on{whence}"
        )
    if (differ := data.other_classes(run.classes, images.classes)) is not None:
        raise ValueError(
            f"{name} was trained on other classes than those of {where}: {differ}. --data must hold the classes that "
            f"it was trained on, by the same names (of folders, or in classes.txt) and in the same order"
        )
