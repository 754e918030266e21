"""EncodedBatches: the files of one batch after another, read ahead by threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from fastadv.data.loaders.bad_images import BadImage, replaced
from fastadv.data.sources.base import ImageSource

_READERS = 8  # they wait for the disk: more than there are cores, and apart from the threads that decode


@dataclass(frozen=True, eq=False)
class Encoded:
    """A batch before it is decoded.

    Args:
        files: content of the m images, as it goes to the decoder.
        indices: [m] int64, of the data set's images that they are.
        bad: images that were asked for and cannot be used.
    """

    files: list[bytes]
    indices: Tensor
    bad: list[BadImage]


class EncodedBatches:
    """Iterates over batches of encoded images; a context manager, which ends the reading.

    Args:
        source: where the images are.
        batches: the data-set indices [m] of each batch.
        train: whether another image takes the place of a bad one.
        refused: why images that could be read are bad all the same.
        prepare: makes of an image's index and its file what goes to the decoder; a ValueError has the reason why it
            cannot.
        prefetch: batches read ahead.
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

    def __iter__(self) -> Iterator[Encoded]:
        ahead: deque[list[Future[_Read]]] = deque()
        for indices in self._batches:
            ahead.append([self._pool.submit(self._read, index) for index in indices.tolist()])
            if len(ahead) > self._prefetch:
                yield _gathered(ahead.popleft())
        while ahead:
            yield _gathered(ahead.popleft())

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

        index, bad = replaced(self._source, wanted, self._train, reason_against)
        return index, content, bad


_Read = tuple[int | None, bytes, list[BadImage]]  # the image's index, None for an empty place; its content


def _gathered(reads: list[Future[_Read]]) -> Encoded:
    done = [read.result() for read in reads]
    kept = [(index, content) for index, content, _ in done if index is not None]
    return Encoded(
        files=[content for _, content in kept],
        indices=torch.tensor([index for index, _ in kept], dtype=torch.int64),
        bad=[bad for _, _, passed_over in done for bad in passed_over],
    )
