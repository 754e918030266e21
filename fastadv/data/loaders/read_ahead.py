"""EncodedBatches: reads the files of batches ahead of time, in threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from fastadv.data.loaders.bad_images import BadImage, find_replacement
from fastadv.data.sources.base import ImageSource

_READERS = 8  # they wait for the disk, so there may be more than cores; decoding has its own threads


@dataclass(frozen=True, eq=False)
class EncodedBatch:
    """A batch before decoding.

    Args:
        files: content of the m images, prepared for the decoder.
        indices: [m] int64, indices of the images in the data set.
        bad: images that were requested and cannot be used.
    """

    files: list[bytes]
    indices: Tensor
    bad: list[BadImage]


class EncodedBatches:
    """Iterates over batches of encoded images; a context manager that stops reading at its end.

    Args:
        source: the encoded images.
        batches: data-set indices [m] of each batch.
        train: whether another image replaces a bad one.
        refused: images that are bad although they can be read, and why.
        prepare: takes an image's index and file content, and returns what the decoder gets; raises ValueError with the
            reason if the image is bad.
        prefetch: batches to read ahead.
    """

    def __init__(
        self,
        source: ImageSource,
        batches: Sequence[Tensor],
        *,
        train: bool,
        refused: Mapping[int, str],
        prepare: Callable[[int, bytes], bytes],
        prefetch: int,
    ) -> None:
        self._source = source
        self._batches = batches
        self._train = train
        self._refused = refused
        self._prepare = prepare
        self._prefetch = prefetch
        self._pool = ThreadPoolExecutor(_READERS, thread_name_prefix="fastadv-read")

    def __enter__(self) -> EncodedBatches:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: Any, traceback: TracebackType | None) -> None:
        self._pool.shutdown(cancel_futures=True)

    def __iter__(self) -> Iterator[EncodedBatch]:
        ahead: deque[list[Future[_Read]]] = deque()
        for indices in self._batches:
            ahead.append([self._pool.submit(self._read, index) for index in indices.tolist()])
            if len(ahead) > self._prefetch:
                yield _gather(ahead.popleft())
        while ahead:
            yield _gather(ahead.popleft())

    def _read(self, wanted: int) -> _Read:
        content = b""

        def reason_against(index: int) -> str | None:
            nonlocal content
            if index in self._refused:
                return self._refused[index]
            try:
                content = self._prepare(index, self._source.read(index))
            except (OSError, ValueError) as error:
                return str(error)
            return None

        index, bad = find_replacement(self._source, wanted, self._train, reason_against)
        return index, content, bad


_Read = tuple[int | None, bytes, list[BadImage]]  # index, None for an empty place; content; bad images


def _gather(reads: list[Future[_Read]]) -> EncodedBatch:
    done = [read.result() for read in reads]
    kept = [(index, content) for index, content, _ in done if index is not None]
    return EncodedBatch(
        files=[content for _, content in kept],
        indices=torch.tensor([index for index, _ in kept], dtype=torch.int64),
        bad=[bad for _, _, passed_over in done for bad in passed_over],
    )
