"""Select the records of a folder that can be shown together with those of the last command."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from fastadv.evaluate.attack_specs import may_stop_early
from fastadv.evaluate.records import Record
from fastadv.evaluate.transfer import TransferRecord
from fastadv.utils.text import counted, printable

_JUDGED = {True: "any iterate", False: "the last iterate"}
R = TypeVar("R", bound=Record | TransferRecord)


def select_comparable(now: Sequence[R], folder: Sequence[R]) -> tuple[list[R], list[R]]:
    """Select the records that one set of tables and figures can show.

    Args:
        now: those of a command; all are shown.
        folder: all records of its folder; of several for one cell, the last counts.

    Returns:
        The command's records, then earlier ones with the same images, seed and model weights, whose attacks stop early
        if the command's do; and the records of the
        folder that are left out.
    """
    weights: dict[str, Hashable] = {}
    for record in (*now, *reversed(folder)):
        for name, those in _models(record).items():
            weights.setdefault(name, those)
    verdicts = _verdicts([*now, *reversed(folder)])
    shown = {_cell(record) for record in now}
    before: dict[Hashable, R] = {}
    for record in reversed(folder):
        alike = (record.images, record.seed) == (now[0].images, now[0].seed)
        alike = alike and all(verdicts[what] == stops for what, stops in _verdicts([record]).items())
        if alike and all(weights[name] == those for name, those in _models(record).items()):
            # Equal `images` means the same files shown in the same way, which earlier versions did not write.
            before.setdefault(_cell(record), replace(record, shown=record.shown or now[0].shown, folder=now[0].folder))
    chosen = [*now, *reversed([record for cell, record in before.items() if cell not in shown])]
    keys = {record.key for record in chosen}
    return chosen, list({record.key: record for record in folder if record.key not in keys}.values())


def _models(record: Record | TransferRecord) -> Mapping[str, Hashable]:
    """Map each model's name to its weights and space."""
    if isinstance(record, Record):
        return {record.model: (record.checkpoint, record.space)}
    return {
        record.source: (record.source_checkpoint, record.source_space),
        record.target: (record.target_checkpoint, record.target_space),
    }


def _verdicts(records: Sequence[Record | TransferRecord]) -> dict[str, bool]:
    """Whether any iterate decides, by the attack's name, and by "" for those with a choice; the first record counts."""
    found: dict[str, bool] = {}
    for record in records:
        if isinstance(record, Record):
            found.setdefault(record.attack, record.any_iterate)
            if may_stop_early(record.attack):
                found.setdefault("", record.any_iterate)
    return found


def _cell(record: Record | TransferRecord) -> Hashable:
    """The cell of a table that a record is for."""
    names = (record.model,) if isinstance(record, Record) else (record.source, record.target)
    return (*names, record.attack, record.eps)


def describe_left_out(now: Record | TransferRecord, left_out: Sequence[Record | TransferRecord]) -> list[str]:
    """Say why records cannot be shown beside those of a command, a line for each reason.

    Args:
        now: a record of the command, of an attack that may stop early if there is one.
        left_out: as :func:`select_comparable` returns them.
    """
    reasons = Counter(_reason(now, record) for record in left_out)
    return [f"{counted(count, 'measurement')} {reason}" for reason, count in reasons.items()]


def _reason(now: Record | TransferRecord, record: Record | TransferRecord) -> str:
    if record.n != now.n:
        return f"on {counted(record.n, 'image')} (this command: {now.n:,})"
    if record.seed != now.seed:  # which also draws the images
        return f"with seed {record.seed} (this command: {now.seed})"
    if record.images != now.images:
        return "on other images, or on images shown at another size"
    both = [one for one in (record, now) if isinstance(one, Record) and may_stop_early(one.attack)]
    if len({one.any_iterate for one in both}) == 2:
        before, here = (_JUDGED[one.any_iterate] for one in both)
        return f"judged by {before} of an attack (this command: by {here})"
    names = printable(" and ".join(_models(record)))
    return f"of {names}, with other weights or attack options than the last under this name"
