"""Check a data set: decode every image completely, in several processes."""

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

_FEW = 1024  # images; decoding this many takes less time than starting processes
_CHUNK = 64  # images per task: enough to make its overhead negligible, few enough for a smooth progress bar

_Mapped = Callable[[Iterable[range]], Iterator[dict[int, str]]]
_worker_source: ImageSource  # in a worker process, the source of all its tasks


def check(source: ImageSource, workers: int, advance: Callable[[int], None]) -> SplitManifest:
    """Decode every image of a split, and list those that fail.

    Args:
        source: the images.
        workers: number of processes; 1 decodes in this process, as is done anyway if there are few images.
        advance: called with the number of images that have been done since the last call.

    Raises:
        BrokenExecutor: if one of the processes died.
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
    """Yield a function that maps :func:`_reasons` over ranges, in ``workers`` processes that end with the block."""
    if workers == 1:
        yield partial(map, partial(_reasons, source))
        return
    # Spawned: forking a process with threads, which PyTorch and the progress bar start, can hang. The source, with all
    # file names, is sent to each process once.
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _start_worker, (source,))

    def mapped(chunks: Iterable[range]) -> Iterator[dict[int, str]]:
        with block_signals():  # for the processes, which start here
            return pool.map(_reasons_in_worker, chunks)

    try:
        yield mapped
    finally:
        pool.shutdown(cancel_futures=True)


def _start_worker(source: ImageSource) -> None:
    global _worker_source
    _worker_source = source
    obey_parent_only()


def _reasons_in_worker(indices: range) -> dict[int, str]:
    return _reasons(_worker_source, indices)


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
