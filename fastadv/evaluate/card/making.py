"""Make a card from records: run the checks, and remake the examples."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from fastadv.evaluate.card.card import Card
from fastadv.evaluate.card.doubts import checked_images, find_doubts
from fastadv.evaluate.card.examples import Example, Look, find_examples
from fastadv.evaluate.records import Record
from fastadv.evaluate.sweep import Subject

EXAMPLES = 4  # of each network


def make_card(
    suite: str,
    subjects: Sequence[Subject],
    records: Sequence[Record],
    look_for: Callable[[Subject], Look],
    *,
    classes: Sequence[str],
    examples: int = EXAMPLES,
    until: float | None = None,
    chunk: int | None = None,
) -> Card:
    """Make the card of networks that were measured.

    Args:
        suite: its name.
        subjects: the networks.
        records: of all of them.
        look_for: returns, for a network, the function that gives its images by their indices.
        classes: names.
        examples: number of images to show for each network.
        until: see :class:`Card`.
        chunk: images of each part that had a seed of its own; None if there was one.
    """
    found: list[Example] = []
    findings = {}
    start = time.perf_counter()
    for subject in subjects:
        own = [record for record in records if record.model == subject.name]
        others = [other for other in subjects if other is not subject]
        findings[subject.name] = find_doubts(subject, own, look_for(subject), others)
    seconds = time.perf_counter() - start
    for subject in subjects:
        own = [record for record in records if record.model == subject.name]
        found += find_examples(subject, own, look_for(subject), count=examples, classes=classes, chunk=chunk)
    checked = len(checked_images(records[0].n))
    return Card(suite, records, findings, checked, seconds, found, until)
