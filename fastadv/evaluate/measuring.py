"""Measures what a file of records lacks, pass by pass; each record is on disk before the next pass begins."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Generic, TypeVar

from fastadv.distributed import ALONE, Processes, on_main
from fastadv.evaluate.records import RecordFile
from fastadv.utils.progress import Work, show_progress

R = TypeVar("R", bound=Any)
Advance = Callable[[int], None]  # takes the number of images that are done


@dataclass(frozen=True, eq=False)
class Pass(Generic[R]):
    """One pass over the images, which measures one evaluation or several.

    Args:
        title: of the progress bar, and of the line that is printed where there is no terminal.
        cost: what it takes for each image, in forward passes.
        measure: returns the records, and reports how many images are done.
        evaluations: how many it measures.
        describe: a line for each record, instead of the title.
    """

    title: str
    cost: float
    measure: Callable[[Advance], Iterable[R]]
    evaluations: int = 1
    describe: Callable[[R], str] | None = None


def measure_all(passes: Sequence[Pass[R]], images: int, file: RecordFile[R], processes: Processes = ALONE) -> None:
    """Run the passes, and append their records to the file unless it has them.

    Args:
        passes: what the file lacks.
        images: how many each pass goes over, of this process.
        file: where records are appended; of several processes the main one writes.
        processes: that measure together.

    Raises:
        OSError: the file cannot be written.
    """
    lines, total = itertools.count(1), sum(one.evaluations if one.describe else 1 for one in passes)
    with show_progress(images * sum(one.cost for one in passes), shown=processes.main) as work:
        for one in passes:
            work.begin(one.title)
            for record in one.measure(partial(_advance, work, one.cost)):
                if file.find(record.key) is None:
                    keep(record, file, processes)
                if one.describe and work.by_lines:
                    print(f"{next(lines)}/{total}  {one.describe(record)}", file=sys.stderr, flush=True)
            if not one.describe and work.by_lines:
                print(f"{next(lines)}/{total}  {one.title}", file=sys.stderr, flush=True)


def _advance(work: Work, cost: float, images: int) -> None:
    work.advance(images * cost)


def keep(record: R, file: RecordFile[R], processes: Processes) -> None:
    """Append a record: the main process writes it, and all know it."""
    on_main(processes, lambda: file.append(record))
    if not processes.main:
        file.remember(record)


def recorded(
    evaluation: Any, file: RecordFile[R], names: Sequence[str], shown_as: str, processes: Processes = ALONE
) -> R:
    """The record of an evaluation that was measured, under the names that its models have now.

    Args:
        evaluation: which record it is.
        file: where it is, and is recorded under these names too if they are others.
        names: the fields that name the models.
        shown_as: how images are shown, where the record does not say it.
        processes: that measure together.
    """
    found = file.find(evaluation.key)
    assert found is not None
    record = replace(found, **{name: getattr(evaluation, name) for name in names})
    if record not in file.records:
        keep(record, file, processes)
    return replace(record, shown=record.shown or shown_as)
