"""Images that cannot be read or decoded: how they are reported, and which image replaces each."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain

from fastadv.data.sources.base import ImageSource
from fastadv.utils.stacklevel import user_stacklevel

MOST_IN_A_ROW = 256  # bad images: more mean that the folder is gone, and trying each of a million takes hours


@dataclass(frozen=True, kw_only=True)
class BadImage:
    """An image that cannot be read or decoded.

    In training, the next usable image of the data set takes its place (after the last one, the first), with its own
    label and augmentation: this depends on the order of the data set, not on the batch or the process. In evaluation,
    its place stays empty, so that no image counts twice.

    Args:
        name: its path, or its place in a shard.
        reason: why it cannot be used.
        replacement: name of the image that replaces it; None if its place stays empty.
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
    """Too many images in a row cannot be used: probably their folder or disk is gone."""


def too_many(bad: Sequence[BadImage]) -> TooManyBadImages:
    """Create the error for consecutive bad images, with the reasons for the first and the last."""
    first, last = (f"{image.name} ({image.reason})" for image in (bad[0], bad[-1]))
    return TooManyBadImages(
        f"{len(bad)} images in a row cannot be used, from {first} to {last}: if their folder is still there, "
        f"fastadv data check DIR finds all such files and has training leave them out"
    )


def warn_of_bad_image(bad: BadImage) -> None:
    """Warn of a bad image; the default of loaders' ``on_bad_image``."""
    warnings.warn(str(bad), BadImageWarning, stacklevel=user_stacklevel())


def find_replacement(
    source: ImageSource, index: int, train: bool, reason_against: Callable[[int], str | None]
) -> tuple[int | None, list[BadImage]]:
    """Find the image to use in the place of image ``index``: the image itself if it can be used.

    Images that the source leaves out are skipped silently: loading their manifest warned of them.

    Args:
        source: the data set.
        index: the image that the batch asks for.
        train: whether another image may replace it.
        reason_against: returns why an image cannot be used, None if it can.

    Returns:
        The index, or None for an empty place; and all images that were found to be bad.

    Raises:
        TooManyBadImages: in training, after :data:`MOST_IN_A_ROW` bad images, or if no image can be used.
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
