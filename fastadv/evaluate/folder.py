"""What a folder's records show together: those of a command beside those of commands before it."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from fastadv.evaluate.records import Record
from fastadv.evaluate.transfer import TransferRecord

R = TypeVar("R", bound=Record | TransferRecord)


def beside(now: Sequence[R], folder: Sequence[R]) -> tuple[list[R], int]:
    """Records that one set of tables and figures can show.

    Args:
        now: of a command, which all are shown.
        folder: all of its folder; the last of a kind counts.

    Returns:
        The command's records, then those before it of the same images and seed, whose models still have the weights
        that they had; and how many measurements of the folder are left out.
    """
    weights: dict[str, Hashable] = {}
    for record in (*now, *reversed(folder)):
        for name, those in _models(record).items():
            weights.setdefault(name, those)
    shown = {_cell(record) for record in now}
    before: dict[Hashable, R] = {}
    for record in reversed(folder):
        alike = (record.images, record.seed) == (now[0].images, now[0].seed)
        if alike and all(weights[name] == those for name, those in _models(record).items()):
            # Of the same images, which are the same files shown in the same way; earlier versions did not write it.
            before.setdefault(_cell(record), replace(record, shown=record.shown or now[0].shown))
    chosen = [*now, *reversed([record for cell, record in before.items() if cell not in shown])]
    return chosen, len({record.key for record in folder} - {record.key for record in chosen})


def _models(record: Record | TransferRecord) -> Mapping[str, Hashable]:
    """The weights and space of each model by its name."""
    if isinstance(record, Record):
        return {record.model: (record.checkpoint, record.space)}
    return {
        record.source: (record.source_checkpoint, record.source_space),
        record.target: (record.target_checkpoint, record.target_space),
    }


def _cell(record: Record | TransferRecord) -> Hashable:
    """Where a table has it."""
    names = (record.model,) if isinstance(record, Record) else (record.source, record.target)
    return (*names, record.attack, record.eps)


def remark_on_left_out(count: int) -> str:
    """A line on what no table or figure shows."""
    return (
        f"{count:,} of the folder's measurements are in no table or figure of this command: they are of other images, "
        "another seed, other options of an attack, or weights that their model no longer has"
    )
