"""Measure images in random order, part by part, until the worst case at each eps is known well enough."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from fastadv.data import ImageSet
from fastadv.data.sources.base import Selection
from fastadv.evaluate import sweep as sweeps
from fastadv.evaluate.card.anytime import anytime_interval, is_within
from fastadv.evaluate.card.card import worst_hits
from fastadv.evaluate.records import Record, RecordFile, packed
from fastadv.evaluate.sweep import Images, Subject, Sweep
from fastadv.utils.rng import nth_seed


def measure_until(
    sweep: Sweep, subjects: Sequence[Subject], file: RecordFile[Record], points: float
) -> tuple[list[Record], Images]:
    """Measure batches of images until each interval is within so many points, or no image is left to draw.

    The order is drawn by the sweep's seed, so each part is a simple random sample of what is left. The first images of
    a random order are one of a random part of the set, too: with a limit, intervals are about the whole set. Each part
    has random numbers of its own. If interrupted, a second call continues.

    Args:
        sweep: what would be measured without a stop.
        subjects: the networks.
        file: of records of parts.
        points: half width of the intervals of :mod:`fastadv.evaluate.card.anytime`, in percentage points.

    Returns:
        The records over all images that were measured, and those images, in the order of the records.
    """
    images = sweep.shown()
    total = len(sweep.images) if sweep.drawn else len(images)
    order = draw_order(len(images), sweep.seed)  # [N]
    parts: list[list[Record]] = []
    joined: list[Record] = []
    n = 0
    for number, chosen in enumerate(torch.split(order, sweep.batch_size)):
        seed = nth_seed(sweep.seed, number)
        one = replace(sweep, images=select(images, chosen), limit=None, drawn=False, seed=seed)
        parts.append(sweeps.run(one, subjects, file))
        joined = [_join(same, total, sweep.seed) for same in zip(*parts, strict=True)]
        n += len(chosen)
        print(_describe(joined, points), file=sys.stderr, flush=True)
        if all(is_within(correct, n, total, points) for correct in _worst_cases(joined)):
            break
    return joined, select(images, order[:n])


def draw_order(n: int, seed: int) -> torch.Tensor:
    """A random order of n images: [n].

    Its random numbers are others than those by which the images may have been drawn from the whole set, since the two
    together would not give each image the same chance of being the first.
    """
    generator = torch.Generator("cpu").manual_seed(nth_seed(seed, 1))
    return torch.randperm(n, generator=generator, device="cpu")


def select(images: Images, indices: torch.Tensor) -> Images:
    """Select the images with these indices [n], in this order."""
    if isinstance(images, ImageSet):
        return ImageSet(images.images[indices], images.labels[indices], images.classes)
    return Selection(images, indices)


def _describe(records: Sequence[Record], points: float) -> str:
    """A line on how far the drawing is: the lines of each batch before it are about that batch alone."""
    first = records[0]
    intervals = [anytime_interval(correct, first.n, first.total) for correct in _worst_cases(records)]
    widest = max(max(one.value - one.low, one.high - one.value) for one in intervals)
    return (
        f"{first.n:,} of {first.total:,} images: the worst case is known within {100 * widest:.1f} points; "
        f"stops at {points:g}"
    )


def _worst_cases(records: Sequence[Record]) -> list[int]:
    """How many images each network classifies correctly in the worst case at each eps."""
    cases = dict.fromkeys((record.model, record.eps) for record in records if record.eps)
    return [int(worst_hits([r for r in records if r.model == model], eps).sum()) for model, eps in cases]


def _join(parts: Sequence[Record], total: int, seed: int) -> Record:
    """The record of several parts of the images together."""
    hits = np.concatenate([part.hits for part in parts])  # [n]
    images = hashlib.sha256(" ".join(part.images for part in parts).encode()).hexdigest()
    sums: dict[str, Any] = {name: _sum(parts, name) for name in ("top5", "without_gradient", "gradients", "queries")}
    return replace(
        parts[0],
        images=images,
        n=len(hits),
        total=total,
        seed=seed,
        top1=int(hits.sum()),
        correct=packed(hits),
        seconds=sum(part.seconds for part in parts),
        **sums,
    )


def _sum(parts: Sequence[Record], name: str) -> float | None:
    """The sum of a field over the parts that have it; None if none has."""
    values = [getattr(part, name) for part in parts if getattr(part, name) is not None]
    return sum(values) if values else None
