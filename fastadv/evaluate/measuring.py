"""Measure what a file of records lacks, pass by pass; each record is on disk before the next pass begins."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from fastadv.distributed import ALONE, Processes, on_main
from fastadv.evaluate.pass_progress import PassProgress
from fastadv.evaluate.records import RecordFile
from fastadv.utils.progress import show_progress

R = TypeVar("R", bound=Any)


@dataclass(frozen=True, eq=False)
class Pass(Generic[R]):
    """One pass over the images, which measures one or more evaluations.

    Args:
        title: of the progress bar, and of the line that is printed without a terminal.
        cost: of each image, in forward passes, at most.
        measure: returns the records, and reports how many images are done.
        evaluations: how many it measures.
        describe: returns a line for each record, to be printed instead of the title.
        stops_early: the attack spends less on images that it has fooled.
    """

    title: str
    cost: float
    measure: Callable[[PassProgress], Iterable[R]]
    evaluations: int = 1
    describe: Callable[[R], str] | None = None
    stops_early: bool = False


def measure_all(passes: Sequence[Pass[R]], images: int, file: RecordFile[R], processes: Processes = ALONE) -> None:
    """Run the passes, and append their records to the file unless it has them.

    Args:
        passes: what the file lacks.
        images: how many images each pass goes over in this process.
        file: where records are appended; of several processes, the main one writes.
        processes: that measure together.

    Raises:
        OSError: if the file cannot be written.
    """
    lines, total = itertools.count(1), sum(one.evaluations if one.describe else 1 for one in passes)
    with show_progress(images * sum(one.cost for one in passes), shown=processes.main) as work:
        spent_share = 1.0  # of the cost at most, by the attacks so far that stop early
        for number, one in enumerate(passes):
            later = [(other.cost * images, other.stops_early) for other in passes[number + 1 :]]
            work.begin(one.title)
            progress = PassProgress(work, images, one.cost, later, spent_share if one.stops_early else 1.0)
            for record in one.measure(progress):
                if file.find(record.key) is None:
                    append_record(record, file, processes)
                if one.describe and work.by_lines:
                    print(f"{next(lines)}/{total}  {one.describe(record)}", file=sys.stderr, flush=True)
            if not one.describe and work.by_lines:
                print(f"{next(lines)}/{total}  {one.title}", file=sys.stderr, flush=True)
            if one.stops_early:
                spent_share = progress.spent_share


def append_record(record: R, file: RecordFile[R], processes: Processes) -> None:
    """Append a record: the main process writes it, and all remember it."""
    on_main(processes, lambda: file.append(record))
    if not processes.main:
        file.remember(record)


def find_record(
    evaluation: Any,
    file: RecordFile[R],
    names: Sequence[str],
    shown_as: str,
    folder: str,
    processes: Processes = ALONE,
) -> R:
    """Return the record of an evaluation that was measured, under the names that its models have now.

    Args:
        evaluation: which record it is.
        file: where it is; if its models had other names, it is recorded again under these.
        names: the fields that name the models.
        shown_as: how images are shown, if the record does not say it.
        folder: name of the folder of images in files.
        processes: that measure together.
    """
    found = file.find(evaluation.key)
    assert found is not None
    record = replace(found, **{name: getattr(evaluation, name) for name in names})
    if record not in file.records:
        append_record(record, file, processes)
    return replace(record, shown=record.shown or shown_as, folder=folder)
