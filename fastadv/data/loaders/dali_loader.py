"""DaliLoader: NVIDIA DALI decodes what is needed of each image, on the CPU's threads or on the GPU."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastadv.data.loaders.base import CHANNELS, ImageLoader, Loaded
from fastadv.data.loaders.batch_memory import empty_images
from fastadv.data.loaders.dali_forks import kept_when_forked
from fastadv.data.loaders.dali_formats import decoded_alike, pixels_as_file
from fastadv.data.loaders.dali_graph import create_pipeline, knows_format
from fastadv.data.loaders.read_ahead import Encoded, EncodedBatches
from fastadv.data.transforms.decode import reason_against
from fastadv.data.transforms.preprocessing import Draws
from fastadv.data.transforms.resize import prepared
from fastadv.utils.optional_deps import require


@dataclass(frozen=True, eq=False)
class _Fed:
    """A batch on its way through the pipeline, and what was drawn for it; None for evaluation."""

    batch: Encoded
    draws: Draws | None = None


class DaliLoader(ImageLoader):
    """The fast loader. Arguments, attributes and errors are those of :class:`ImageLoader`.

    On a CUDA device JPEGs are decoded there, by its JPEG decoder if it has one, on the CPU by ``workers`` threads, and
    no more of them than the window that is needed. DALI resizes it on a GPU; on the CPU torchvision does, in as many
    threads, each of which makes one image of the batch after another. Its values are exactly those that the space gives
    the resized pixels (:func:`fastadv.ops.from_pixels_`). Threads of this process read the files ahead of time, so that
    a slow disk does not hold up those that decode. On the CPU ``prefetch`` batches wait as windows of their own size:
    photographs of many megapixels take memory there.

    Both loaders use the same images: DALI gets JPEG, PNG, WebP and BMP as they are, and of images in other formats,
    or that it refuses, the pixels that Pillow decodes. One difference remains. An image is bad if the window that is
    needed of it cannot be decoded: damage below that window can go unnoticed, where :class:`TorchvisionLoader` decodes
    the whole image. DALI's decoders write lines about a bad image to standard error, once in the batch and once when
    the image is sought in it; ``DALI_NVIMGCODEC_LOG_LEVEL`` does not go below errors.

    Raises:
        ModuleNotFoundError: DALI, or for the CPU torchvision, is not installed.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        require("nvidia.dali", extra="dali")
        if self.workers < 1:
            raise ValueError(f"workers must be at least 1 for DALI, got {self.workers}")
        self._unknown: dict[int, str] = {}  # why DALI decodes no window of an image, in any epoch
        self._resize = self.device.type == "cuda"  # by DALI: on the CPU torchvision is several times as fast
        if not self._resize:
            require("torchvision.transforms.v2.functional", extra="train")  # imported here, before threads want it

    def _load(self, epoch: int, batches: list[Tensor]) -> Iterator[Loaded]:
        refused = dict(self._unknown)  # why DALI does not decode an image, in this epoch
        by_pillow: set[int] = set()  # what it refuses, in this epoch, and Pillow decodes

        def prepare(index: int, file: bytes) -> bytes:
            return file if decoded_alike(file) and index not in by_pillow else pixels_as_file(file)

        done = 0
        while done < len(batches):
            # A pipeline that failed is of no more use: another goes on from the batch that it failed at.
            try:
                for loaded in self._decoded(epoch, batches[done:], refused=refused, prepare=prepare):
                    yield loaded
                    done += 1
            except _UndecodableError as failure:
                reasons = self._reasons(epoch, failure)
                refused |= {index: reason for index, reason in reasons.items() if reason is not None}
                by_pillow |= {index for index, reason in reasons.items() if reason is None}

    def _decoded(self, epoch: int, batches: list[Tensor], **options: Any) -> Iterator[Loaded]:
        """The batches that one pipeline makes; an empty one does not go through it."""
        fed: deque[_Fed] = deque()
        with (
            EncodedBatches(self.source, batches, train=self.train, prefetch=self.prefetch, **options) as encoded,
            ThreadPoolExecutor(self.workers, thread_name_prefix="fastadv-resize") as pool,
        ):
            pipeline = self._pipeline(self._fed(epoch, encoded, fed), self.batches.batch_size)
            while (images := self._next(pipeline, fed, pool)) is not None:
                yield from _empty(fed)
                batch = fed.popleft().batch
                yield Loaded(images, batch.indices, batch.bad)
            yield from _empty(fed)

    def _next(self, pipeline: Any, fed: deque[_Fed], pool: Executor) -> Tensor | None:  # [m, 3, size, size]
        """The pipeline's next batch, None after the last."""
        # Bound to the stream that reads it, so that DALI does not reuse the memory before this stream is done with it:
        # the output is let go of when this returns, a kernel may read it later.
        stream = torch.cuda.current_stream(self.device) if self.device.type == "cuda" else None
        try:
            (output,) = pipeline.run(stream)
        except StopIteration:
            return None
        except RuntimeError as error:
            raise _UndecodableError(_first(fed).batch) from error
        return self._made(output, _first(fed).draws, pool)

    def _made(self, output: Any, draws: Draws | None, pool: Executor) -> Tensor:  # [m, 3, size, size]
        """The batch that the pipeline's output becomes: the pixels of all, or windows of any size."""
        mirrored = None if draws is None else torch.from_numpy(draws.mirrored)  # [m]
        if self._resize:
            return self._images(torch.from_dlpack(output.as_tensor()).permute(0, 3, 1, 2), mirrored)
        images = empty_images(len(output), CHANNELS, self.preprocessing.size, self.device)  # [m, 3, size, size]

        def fill(row: int) -> None:
            window = torch.from_dlpack(output[row]).permute(2, 0, 1)  # [3, height, width]
            size, interpolation = self.preprocessing.size, self.preprocessing.interpolation
            pixels = torch.from_numpy(prepared(window, size, draws, row, interpolation)).permute(2, 0, 1)
            self._put(images, row, pixels, mirrored)

        list(pool.map(fill, range(len(images))))  # raises what a thread raised
        return images

    def _fed(self, epoch: int, batches: Iterable[Encoded], fed: deque[_Fed]) -> Iterator[tuple[Any, ...]]:
        """What the pipeline is fed with, of each batch that is not empty; ``fed`` gets every batch."""
        for batch in batches:
            draws = self._draws(epoch, batch) if batch.files else None
            fed.append(_Fed(batch, draws))
            if batch.files:
                yield self._inputs(batch, draws)

    def _draws(self, epoch: int, batch: Encoded) -> Draws | None:
        return self.preprocessing.draw(self.batches.seed, epoch, batch.indices.tolist()) if self.train else None

    def _inputs(self, batch: Encoded, draws: Draws | None) -> tuple[Any, ...]:
        """What the pipeline takes of a batch."""
        files = [np.frombuffer(file, np.uint8) for file in batch.files]
        if draws is None:
            return (files,)
        by_dali = self._resize and draws.colours is not None
        return (files, draws.windows, draws.colours) if by_dali else (files, draws.windows)

    def _pipeline(self, feed: Iterator[tuple[Any, ...]], batch_size: int) -> Any:
        pipeline = create_pipeline(
            feed,
            preprocessing=self.preprocessing,
            train=self.train,
            batch_size=batch_size,
            workers=self.workers,
            prefetch=self.prefetch,
            resize=self._resize,
            device=self.device,
        )
        return kept_when_forked(pipeline)

    # --- failures ----------------------------------------------------------------------------------------------------

    def _reasons(self, epoch: int, failure: _UndecodableError) -> dict[int, str | None]:
        """Which images of a batch DALI does not decode, and why: it fails as a whole and names none.

        There is no reason against those that Pillow decodes.

        Those of a format that it does not know are kept in mind. Of another image it may decode the window of a later
        epoch: if that followed from what was seen before, a resumed run would see other images.

        Raises:
            RuntimeError: each can be decoded, so that something else is wrong.
        """
        reasons: dict[int, str | None] = {}
        batch = failure.batch
        for index, file in zip(batch.indices, batch.files, strict=True):
            alone = Encoded([file], index[None], [])
            pipeline = self._pipeline(iter([self._inputs(alone, self._draws(epoch, alone))]), 1)
            try:
                pipeline.run()
            except RuntimeError as error:
                by_pillow = f"DALI refuses the pixels that Pillow decodes: {_told(error)}"
                reason = reason_against(file) if decoded_alike(file) else by_pillow
                reasons[int(index)] = reason
                if reason is not None and not knows_format(np.frombuffer(file, np.uint8)):
                    self._unknown[int(index)] = reason
        if not reasons:
            raise RuntimeError(
                f"DALI failed, though it decodes each image of the batch: {failure.__cause__}"
            ) from failure
        return reasons


class _UndecodableError(Exception):
    """A pipeline failed at this batch."""

    def __init__(self, batch: Encoded) -> None:
        super().__init__()
        self.batch = batch


def _told(error: RuntimeError) -> str:
    """What DALI says of an operator's failure, without where in the graph the operator stands."""
    return " ".join(str(error).partition("encountered:")[2].partition("Current pipeline")[0].split())


def _first(fed: deque[_Fed]) -> _Fed:
    """The next that goes through the pipeline."""
    return next(one for one in fed if one.batch.files)


def _empty(fed: deque[_Fed]) -> Iterator[Loaded]:
    """The batches before the next one that went through the pipeline."""
    while fed and not fed[0].batch.files:
        batch = fed.popleft().batch
        yield Loaded(torch.empty(0), batch.indices, batch.bad)
