"""Counts of correctly classified images, and their sums."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fastadv.evaluate.hits import Hits
from fastadv.evaluate.html import html_table
from fastadv.evaluate.intervals import proportion
from fastadv.utils.text import counted


@dataclass(frozen=True)
class Counts:
    """How many of ``n`` images were classified correctly; ``top5`` is None with fewer than six classes.

    ``correct`` marks those that were correct at top 1, in the order of the batches, so two sets of counts on the same
    images can be compared image by image. ``without_gradient`` is the number of images whose gradient was zero or not
    finite: an attack does little or nothing to them, and if there are many, the accuracy says nothing about robustness.
    It is None if no gradient was computed.
    """

    n: int
    top1: int
    top5: int | None
    correct: Tensor = field(compare=False, repr=False)  # [n] bool
    without_gradient: int | None = None

    def _repr_html_(self) -> str:
        found = [("top 1", self.top1)] if self.top5 is None else [("top 1", self.top1), ("top 5", self.top5)]
        rows = [(top, str(proportion(count, self.n)), f"{count:,} of {self.n:,}") for top, count in found]
        lost = self.without_gradient
        gradient = "had no usable gradient: the attack does little or nothing to them"
        notes = [f"{counted(lost, 'image')} {gradient}."] if lost else []
        return html_table(("", "accuracy", "correct"), rows, notes=notes)


@dataclass(frozen=True)
class WorstCase:
    """Counts under several attacks.

    Args:
        each: the counts under each attack by its name, those of clean images first, as ``"clean"``.
        worst: of the worst case per image: those images count that are classified correctly when clean and under each
            of the attacks.
    """

    each: Mapping[str, Counts]
    worst: Counts

    def _repr_html_(self) -> str:
        rows = [(name, str(proportion(counts.top1, counts.n))) for name, counts in self.each.items()]
        return html_table(("", "top 1"), [*rows, ("worst case", str(proportion(self.worst.top1, self.worst.n)))])


def add_counts(counts: Sequence[Counts]) -> Counts:
    """Add up the counts of disjoint parts of the images."""
    top5 = None if counts[0].top5 is None else sum(count.top5 or 0 for count in counts)
    correct = torch.cat([count.correct for count in counts])  # [n]
    counted = [count.without_gradient for count in counts if count.without_gradient is not None]
    lost = sum(counted) if counted else None  # an attack that fools all images of a batch at once counts none there
    return Counts(sum(count.n for count in counts), sum(count.top1 for count in counts), top5, correct, lost)


@dataclass(frozen=True, eq=False)
class BatchCounts:
    """What was counted on one batch.

    Args:
        each: under each attack, at each of its sizes.
        worst: of the images that are correct under all of them.
        gradients: of single images that the attacks computed, as far as they count them.
        queries: logits of single images that the attacks asked for without a gradient, as far as they count them.
    """

    each: list[list[Counts]]
    worst: Counts
    gradients: int
    queries: int


def counts_of(found: Hits, without_gradient: int | None = None) -> Counts:
    """Count the hits of a batch."""
    correct = found.top1.cpu()  # [m]
    top5 = None if found.top5 is None else int(found.top5.sum())
    return Counts(len(correct), int(correct.sum()), top5, correct, without_gradient)
