"""Identify data sets: a run resumes only with its own training set, and is evaluated only on its own classes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from fastadv.data.in_memory.image_set import ImageSet
from fastadv.data.sources.base import ImageSource, fingerprint_of_names
from fastadv.utils.text import counted, few


def identity_of(images: ImageSet | ImageSource) -> dict[str, Any]:
    """Identify a data set: number of images, shape of those in memory, sha256 of file names and of labels.

    Names are relative to the data set's folder, which may move, and include files that a manifest leaves out. The
    images themselves are not read.
    """
    identity: dict[str, Any] = {
        "images": len(images),
        "shape": None,
        "names": None,
        "labels": hashlib.sha256(images.labels.cpu().numpy().tobytes()).hexdigest(),
    }
    if isinstance(images, ImageSet):
        return {**identity, "shape": list(images.images.shape[1:])}
    return {**identity, "names": fingerprint_of_names(images)}


def difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """Describe how two identities differ; None if they do not."""
    if before["images"] != now["images"]:
        return f"it had {counted(before['images'], 'image')} and now has {now['images']}"
    if before["shape"] != now["shape"]:
        return f"its images were {before['shape'] or 'files'} and now are {now['shape'] or 'files'}"
    if before["names"] != now["names"]:
        return f"it still has {now['images']} files, but with other names in its folder"
    if before["labels"] != now["labels"]:
        return f"its {now['images']} images have other labels"
    return None


def other_classes(before: Sequence[str], now: Sequence[str]) -> str | None:
    """Describe how classes differ in names or order; None if they do not."""
    if len(before) != len(now):
        return f"there were {len(before)} classes and now are {len(now)}"
    changed = [number for number, (one, other) in enumerate(zip(before, now, strict=True)) if one != other]
    if not changed:
        return None
    return few([f"class {number} was {before[number]!r} and is {now[number]!r}" for number in changed], most=3)
