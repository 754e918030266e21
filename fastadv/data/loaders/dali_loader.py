"""DaliLoader: NVIDIA DALI decodes the crop that is needed of each image, in CPU threads or on the GPU."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastadv.data.loaders.base import CHANNELS, DecodedBatch, ImageLoader
from fastadv.data.loaders.batch_memory import empty_images
from fastadv.data.loaders.dali_forks import keep_when_forked
from fastadv.data.loaders.dali_formats import decoded_alike, pixels_as_file
from fastadv.data.loaders.dali_graph import create_pipeline, knows_format
from fastadv.data.loaders.read_ahead import EncodedBatch, EncodedBatches
from fastadv.data.transforms.decode import reason_against
from fastadv.data.transforms.preprocessing import Draws
from fastadv.data.transforms.resize import resize_and_colour
from fastadv.utils.optional_deps import require


@dataclass(frozen=True, eq=False)
class _InPipeline:
    """A batch in the pipeline, and the draws for it; None in evaluation."""

    batch: EncodedBatch
    draws: Draws | None = None


class DaliLoader(ImageLoader):
    """The fast loader. Arguments, attributes and errors are those of :class:`ImageLoader`.

    Only the crop that is needed is decoded: on a CUDA device by its JPEG decoder, if it has one, otherwise by
    ``workers`` CPU threads. DALI resizes on a GPU; on the CPU torchvision does, in the same number of threads, one
    image at a time. The values are exactly those that the space gives the resized pixels
    (:func:`fastadv.ops.from_pixels_`). Separate threads read files ahead of time, so that a slow disk does not hold up
    decoding. On the CPU, ``prefetch`` batches are queued as crops of their original size, so photographs of many
    megapixels take memory.

    Both loaders use the same images: DALI decodes JPEG, PNG, WebP and BMP, and gets images in other formats, or that it
    refuses, as pixels decoded by Pillow. One difference remains: an image is bad if its crop cannot be decoded, so
    damage below the crop can go unnoticed, whereas :class:`TorchvisionLoader` decodes the whole image. DALI's decoders
    write lines about a bad image to standard error, once for the batch and once while the image is searched for;
    ``DALI_NVIMGCODEC_LOG_LEVEL`` cannot suppress errors.

    Raises:
        ModuleNotFoundError: if DALI, or torchvision for the CPU, is not installed.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        require("nvidia.dali", extra="dali")
        if self.workers < 1:
            raise ValueError(f"workers must be at least 1 for DALI, got {self.workers}")
        self._unknown: dict[int, str] = {}  # why DALI cannot decode any crop of an image
        self._resize = self.device.type == "cuda"  # by DALI; on the CPU torchvision is several times as fast
        if not self._resize:
            require("torchvision.transforms.v2.functional", extra="train")  # imported before threads need it

    def _load(self, epoch: int, batches: list[Tensor]) -> Iterator[DecodedBatch]:
        refused = dict(self._unknown)  # why DALI cannot decode an image's crop in this epoch
        by_pillow: set[int] = set()  # images whose crop DALI refuses in this epoch, and Pillow decodes

        def prepare(index: int, file: bytes) -> bytes:
            return file if decoded_alike(file) and index not in by_pillow else pixels_as_file(file)

        done = 0
        while done < len(batches):
            # A failed pipeline cannot be used any more: a new one continues from the batch that failed.
            try:
                for loaded in self._decoded(epoch, batches[done:], refused=refused, prepare=prepare):
                    yield loaded
                    done += 1
            except _UndecodableError as failure:
                reasons = self._reasons(epoch, failure)
                refused |= {index: reason for index, reason in reasons.items() if reason is not None}
                by_pillow |= {index for index, reason in reasons.items() if reason is None}

    def _decoded(self, epoch: int, batches: list[Tensor], **options: Any) -> Iterator[DecodedBatch]:
        """Yield the batches of one pipeline; empty batches bypass it."""
        queue: deque[_InPipeline] = deque()
        with (
            EncodedBatches(self.source, batches, train=self.train, prefetch=self.prefetch, **options) as encoded,
            ThreadPoolExecutor(self.workers, thread_name_prefix="fastadv-resize") as pool,
        ):
            pipeline = self._pipeline(self._feed(epoch, encoded, queue), self.batches.batch_size)
            while (images := self._next(pipeline, queue, pool)) is not None:
                yield from _empty_batches(queue)
                batch = queue.popleft().batch
                yield DecodedBatch(images, batch.indices, batch.bad)
            yield from _empty_batches(queue)

    def _next(self, pipeline: Any, queue: deque[_InPipeline], pool: Executor) -> Tensor | None:  # [m, 3, size, size]
        """The pipeline's next batch; None after the last."""
        # Bound to the stream that reads the output, so that DALI does not reuse its memory too early: the output is
        # released when this returns, and a kernel may read it later.
        stream = torch.cuda.current_stream(self.device) if self.device.type == "cuda" else None
        try:
            (output,) = pipeline.run(stream)
        except StopIteration:
            return None
        except RuntimeError as error:
            raise _UndecodableError(_next_in(queue).batch) from error
        return self._images_of(output, _next_in(queue).draws, pool)

    def _images_of(self, output: Any, draws: Draws | None, pool: Executor) -> Tensor:  # [m, 3, size, size]
        """Convert the pipeline's output, resized pixels or crops of any size, to images."""
        mirrored = None if draws is None else torch.from_numpy(draws.mirrored)  # [m]
        if self._resize:
            return self._images(torch.from_dlpack(output.as_tensor()).permute(0, 3, 1, 2), mirrored)
        images = empty_images(len(output), CHANNELS, self.preprocessing.size, self.device)  # [m, 3, size, size]

        def fill(row: int) -> None:
            window = torch.from_dlpack(output[row]).permute(2, 0, 1)  # [3, height, width]
            size, interpolation = self.preprocessing.size, self.preprocessing.interpolation
            pixels = torch.from_numpy(resize_and_colour(window, size, draws, row, interpolation)).permute(2, 0, 1)
            self._put(images, row, pixels, mirrored)

        list(pool.map(fill, range(len(images))))  # re-raises errors of the threads
        return images

    def _feed(
        self, epoch: int, batches: Iterable[EncodedBatch], queue: deque[_InPipeline]
    ) -> Iterator[tuple[Any, ...]]:
        """Yield the pipeline's inputs for each batch that is not empty; append every batch to ``queue``."""
        for batch in batches:
            draws = self._draws(epoch, batch) if batch.files else None
            queue.append(_InPipeline(batch, draws))
            if batch.files:
                yield self._inputs(batch, draws)

    def _draws(self, epoch: int, batch: EncodedBatch) -> Draws | None:
        return self.preprocessing.draw(self.batches.seed, epoch, batch.indices.tolist()) if self.train else None

    def _inputs(self, batch: EncodedBatch, draws: Draws | None) -> tuple[Any, ...]:
        """The pipeline's inputs for a batch."""
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
        return keep_when_forked(pipeline)

    # --- failures ----------------------------------------------------------------------------------------------------

    def _reasons(self, epoch: int, failure: _UndecodableError) -> dict[int, str | None]:
        """Find the images of a failed batch that DALI cannot decode: its error does not name them.

        Maps their indices to the reason, or to None if Pillow decodes the image.

        Images in a format that DALI does not know are remembered. Others are tried again in later epochs, whose crops
        it may decode: if they were remembered, a resumed run would see different images.

        Raises:
            RuntimeError: if each image can be decoded, so that something else is wrong.
        """
        reasons: dict[int, str | None] = {}
        batch = failure.batch
        for index, file in zip(batch.indices, batch.files, strict=True):
            alone = EncodedBatch([file], index[None], [])
            pipeline = self._pipeline(iter([self._inputs(alone, self._draws(epoch, alone))]), 1)
            try:
                pipeline.run()
            except RuntimeError as error:
                by_pillow = f"DALI refuses the pixels that Pillow decodes: {_reason_in(error)}"
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
    """A pipeline failed in this batch."""

    def __init__(self, batch: EncodedBatch) -> None:
        super().__init__()
        self.batch = batch


def _reason_in(error: RuntimeError) -> str:
    """The reason in DALI's error of an operator, without the description of the graph."""
    return " ".join(str(error).partition("encountered:")[2].partition("Current pipeline")[0].split())


def _next_in(queue: deque[_InPipeline]) -> _InPipeline:
    """The next batch that goes through the pipeline."""
    return next(one for one in queue if one.batch.files)


def _empty_batches(queue: deque[_InPipeline]) -> Iterator[DecodedBatch]:
    """Yield the empty batches before the next one that went through the pipeline."""
    while queue and not queue[0].batch.files:
        batch = queue.popleft().batch
        yield DecodedBatch(torch.empty(0), batch.indices, batch.bad)
