"""Checking a data set: every image is decoded whole, by several processes."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial

from fastadv.data.sources.base import ImageSource, fingerprint_of_keys
from fastadv.data.sources.manifest import LeftOut, SplitManifest, stamp_of
from fastadv.data.transforms.decode import reason_against
from fastadv.utils.signals import block_signals, obey_parent_only

_FEW = 1024  # images that are read in less time than other processes take to start
_CHUNK = 64  # images a task: enough that handing it out costs nothing, few enough for a bar that moves

_Mapped = Callable[[Iterable[range]], Iterator[dict[int, str]]]
_taken: ImageSource  # in a process of several, what all its tasks are of


def check(source: ImageSource, workers: int, advance: Callable[[int], None]) -> SplitManifest:
    """Decode every image of a split.

    Args:
        source: the images.
        workers: processes; 1 for this one alone, which also does where there are few images.
        advance: called with a number of images when so many more are done.

    Raises:
        BrokenExecutor: one of the processes died.
    """
    if len(source) <= _FEW:
        workers = 1
    chunks = [range(start, min(start + _CHUNK, len(source))) for start in range(0, len(source), _CHUNK)]
    left_out: list[LeftOut] = []
    with _mapping(source, workers) as mapped:
        for chunk, reasons in zip(chunks, mapped(chunks), strict=True):
            left_out += [_left_out(source, index, reason) for index, reason in reasons.items()]
            advance(len(chunk))
    return SplitManifest(images=len(source), keys=fingerprint_of_keys(source), left_out=tuple(left_out))


@contextmanager
def _mapping(source: ImageSource, workers: int) -> Iterator[_Mapped]:
    """:func:`_reasons` of each range, in so many processes, which this one ends; in this one if that is enough."""
    if workers == 1:
        yield partial(map, partial(_reasons, source))
        return
    # Spawned: a fork of a process with threads, as PyTorch and the progress bar start them, can hang. The source, with
    # the name of every file, goes to each process once.
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _take, (source,))

    def mapped(chunks: Iterable[range]) -> Iterator[dict[int, str]]:
        with block_signals():  # those processes, that is, which start now
            return pool.map(_reasons_of_taken, chunks)

    try:
        yield mapped
    finally:
        pool.shutdown(cancel_futures=True)


def _take(source: ImageSource) -> None:
    global _taken
    _taken = source
    obey_parent_only()


def _reasons_of_taken(indices: range) -> dict[int, str]:
    return _reasons(_taken, indices)


def _reasons(source: ImageSource, indices: range) -> dict[int, str]:
    found = {index: _reason(source, index) for index in indices}
    return {index: reason for index, reason in found.items() if reason is not None}


def _reason(source: ImageSource, index: int) -> str | None:
    try:
        return reason_against(source.read(index))
    except OSError as error:
        return error.strerror or str(error)


def _left_out(source: ImageSource, index: int, reason: str) -> LeftOut:
    size, changed = stamp_of(source, index)
    return LeftOut(index=index, key=source.key(index), size=size, changed=changed, reason=reason)
