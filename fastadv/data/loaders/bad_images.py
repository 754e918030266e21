"""Images that cannot be used: said by name, their places taken by a stated rule."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain

from fastadv.data.sources.base import ImageSource
from fastadv.utils.stacklevel import user_stacklevel

MOST_IN_A_ROW = 256  # bad images: so many do not break by themselves, and to try each of a million takes hours


@dataclass(frozen=True, kw_only=True)
class BadImage:
    """An image that cannot be read or decoded.

    In training its place is taken by the next image of the data set that can be, after the last by the first, with
    that image's own label and augmentation: a function of the data set's order, not of the batch or the process. In
    evaluation its place stays empty, so that no image counts twice.

    Args:
        name: its path, or its place in a shard.
        reason: why.
        replacement: the name of the image in its place; None for an empty place.
    """

    name: str
    reason: str
    replacement: str | None

    def __str__(self) -> str:
        place = "left out" if self.replacement is None else f"replaced by {self.replacement}"
        return f"{self.name} cannot be used ({self.reason}): {place}. fastadv data check DIR lists all such files"


class BadImageWarning(UserWarning):
    """A file of the data set cannot be used."""


class TooManyBadImages(OSError):
    """So many images in a row cannot be used that it is not the files: their folder is gone, or the disk."""


def too_many(bad: Sequence[BadImage]) -> TooManyBadImages:
    """The error for these images in a row, with the reason against the first and the last."""
    first, last = (f"{image.name} ({image.reason})" for image in (bad[0], bad[-1]))
    return TooManyBadImages(
        f"{len(bad)} images in a row cannot be used, from {first} to {last}: if their folder is still there, "
        f"fastadv data check DIR finds all such files and has training leave them out"
    )


def warn_of_bad_image(bad: BadImage) -> None:
    """What loaders do with a bad image unless told otherwise."""
    warnings.warn(str(bad), BadImageWarning, stacklevel=user_stacklevel())


def replaced(
    source: ImageSource, index: int, train: bool, reason_against: Callable[[int], str | None]
) -> tuple[int | None, list[BadImage]]:
    """The index of the image that takes the place of image ``index``, itself if there is nothing against it.

    Images that the source leaves out are passed over without a word: the manifest that they come from was spoken of.

    Args:
        source: the data set.
        index: what the batch asks for.
        train: whether another image may take its place.
        reason_against: why an image cannot be used, None if it can.

    Returns:
        The index, None for an empty place; and every image that was found to be bad.

    Raises:
        TooManyBadImages: for training, :data:`MOST_IN_A_ROW` images that are not left out, or all that there are.
    """
    refused: list[tuple[int, str]] = []

    def bad(replacement: str | None) -> list[BadImage]:
        return [BadImage(name=source.name(i), reason=reason, replacement=replacement) for i, reason in refused]

    def usable(candidate: int) -> bool:
        if candidate in source.left_out:
            return False
        reason = reason_against(candidate)
        if reason is not None:
            refused.append((candidate, reason))
        if len(refused) == MOST_IN_A_ROW:
            raise too_many(bad(None))
        return reason is None

    candidates = chain(range(index, len(source)), range(index)) if train else [index]
    found = next(filter(usable, candidates), None)
    if train and found is None:
        raise too_many(bad(None))
    return found, bad(None if found is None else source.name(found))
