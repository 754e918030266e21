"""Label the images of a plain folder with the classes of the networks that they are shown to."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence

from fastadv.data.sources.class_names import CLASSES_FILE
from fastadv.data.sources.folder import ImageFolder
from fastadv.data.sources.plain_folder import are_imagenet_ids, class_folders, imagenet_ids, with_classes
from fastadv.utils.log import logger
from fastadv.utils.text import counted, printable

CLASSES_OF_FOLDER = (
    f"; the classes of a folder are its subfolders, unless {CLASSES_FILE} in it names them all, one per line"
)


def label_folder(
    images: ImageFolder, runs: Sequence[tuple[str, ...]], classes: Collection[int], *, say: bool
) -> ImageFolder:
    """Return the images with labels that are the networks' own.

    The order of the classes is that of ``classes.txt`` in the folder; else of a run, by the names of its classes; else
    ImageNet's, if all networks have 1,000 classes and the folders are named by WordNet ids such as n01440764; else that
    of the folders, sorted by name.

    Args:
        images: as :func:`fastadv.data.load_test` lists them.
        runs: names of the classes of each run.
        classes: numbers of classes of the other networks.
        say: log the choice.
    """
    folders = class_folders(images)
    what = f"{printable(images.root.name)}: labels are places among"
    if os.path.lexists(images.root / CLASSES_FILE):
        _log(say, f"{what} the {counted(len(images.classes), 'class')} in {images.root / CLASSES_FILE}")
    elif runs and set(folders) <= set(runs[0]):
        _log(say, f"{what} the {counted(len(runs[0]), 'class')} of the runs, by the names of the folders")
        return with_classes(images, runs[0])
    elif not runs and {*classes} == {1000} != {len(folders)} and are_imagenet_ids(folders):
        _log(
            say,
            f"{what} ImageNet's 1,000 classes, by the WordNet ids that the {counted(len(folders), 'folder')} are "
            "named by",
        )
        return with_classes(images, imagenet_ids())
    else:
        _log(say, f"{what} the {counted(len(folders), 'folder')}, sorted by name: {_ends(folders)}")
    return images


def _ends(folders: Sequence[str]) -> str:
    first, *others = folders
    return f"0 is {printable(first)}" + (f", {len(others)} is {printable(others[-1])}" if others else "")


def _log(say: bool, text: str) -> None:
    if say:
        logger.info("%s", text)
