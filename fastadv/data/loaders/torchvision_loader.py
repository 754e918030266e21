"""TorchvisionLoader: Pillow decodes and torchvision resizes, in several processes. Runs everywhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from fastadv.data.loaders.bad_images import BadImage, TooManyBadImages, find_replacement
from fastadv.data.loaders.base import CHANNELS, DecodedBatch, ImageLoader
from fastadv.data.sources.base import ImageSource
from fastadv.data.transforms.decode import decode, formats_here
from fastadv.data.transforms.preprocessing import Draws, NumPyArithmetic, Preprocessing, central_window, random_window
from fastadv.data.transforms.resize import resize_and_colour
from fastadv.utils.optional_deps import require
from fastadv.utils.signals import block_signals, obey_parent_only

# Pixels [m, 3, size, size] uint8; which to mirror [m]; data-set indices [m]; bad images.
_Batch = tuple[Tensor, Tensor | None, Tensor, list[BadImage]]


class TorchvisionLoader(ImageLoader):
    """The loader that needs only torchvision and Pillow: reference for :class:`DaliLoader`, and its replacement.

    ``workers`` processes decode and resize; with 0, this process does so when a batch is requested. Batches travel from
    the workers, and to a GPU, with 8 bits per value, and are then converted by :func:`fastadv.ops.from_pixels`.
    Arguments, attributes and errors are those of :class:`ImageLoader`.

    Raises:
        ModuleNotFoundError: if torchvision or Pillow is not installed.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        # Imported before workers are forked: otherwise each would take seconds for it in each epoch.
        for module in ("PIL.Image", "torchvision.transforms.v2.functional"):
            require(module, extra="train")
        formats_here()

    def _load(self, epoch: int, batches: list[Tensor]) -> Iterator[DecodedBatch]:
        loader: DataLoader[_Batch | TooManyBadImages] = DataLoader(
            _Examples(self.source, self.preprocessing, self.train, self.batches.seed, epoch),
            batch_sampler=[indices.tolist() for indices in batches],
            collate_fn=_unchanged,
            num_workers=self.workers,
            prefetch_factor=self.prefetch if self.workers else None,
            # Forked whatever Python's default is: workers inherit imported modules, and a million file names.
            multiprocessing_context="fork" if self.workers else None,
            pin_memory=self.device.type == "cuda",
            generator=torch.Generator(),  # not the default one, which dropout draws from: each iterator draws once
            worker_init_fn=_start_worker,
        )
        with block_signals():  # workers start here, and a signal may arrive before they are ready
            loaded = iter(loader)
        for batch in loaded:
            if isinstance(batch, TooManyBadImages):
                raise batch
            pixels, mirrored, indices, bad = batch
            yield DecodedBatch(self._images(pixels, mirrored), indices, bad)


def _start_worker(worker: int) -> None:
    obey_parent_only()


def _unchanged(batch: Any) -> Any:
    return batch


@dataclass(frozen=True, eq=False)
class _Examples(Dataset[Any]):
    """The examples of one epoch, for DataLoader, which requests a batch at a time."""

    source: ImageSource
    preprocessing: Preprocessing
    train: bool
    seed: int
    epoch: int

    def __len__(self) -> int:
        return len(self.source)

    def __getitems__(self, indices: Sequence[int]) -> _Batch | TooManyBadImages:
        try:
            return self._batch(indices)
        except TooManyBadImages as error:  # DataLoader would add a traceback to the message
            return error

    def _batch(self, indices: Sequence[int]) -> _Batch:
        decoded: list[Tensor] = []  # [3, H, W] uint8 each
        used: list[int] = []
        bad_images: list[BadImage] = []

        def reason_against(index: int) -> str | None:
            try:
                decoded.append(decode(self.source.read(index)))
            except (OSError, ValueError) as error:
                return str(error)
            return None

        for wanted in indices:
            index, bad = find_replacement(self.source, wanted, self.train, reason_against)
            used += [] if index is None else [index]
            bad_images += bad
        draws = self.preprocessing.draw(self.seed, self.epoch, used) if self.train else None
        mirrored = None if draws is None else torch.from_numpy(draws.mirrored)  # [m]
        size, interpolation = self.preprocessing.size, self.preprocessing.interpolation
        pixels = torch.empty((len(used), size, size, CHANNELS), dtype=torch.uint8)
        for row, image in enumerate(decoded):
            pixels.numpy()[row] = resize_and_colour(self._window(image, draws, row), size, draws, row, interpolation)
        return pixels.permute(0, 3, 1, 2), mirrored, torch.tensor(used, dtype=torch.int64), bad_images

    def _window(
        self, image: Tensor, draws: Draws | None, row: int
    ) -> Tensor:  # [3, H, W] -> [3, height, width] of the window
        height, width = map(np.float64, image.shape[1:])
        if draws is None:
            central, keep_aspect = self.preprocessing.central, self.preprocessing.keep_aspect
            window = central_window(height, width, central, NumPyArithmetic(), keep_aspect=keep_aspect)
        else:
            widest = self.preprocessing.widest_aspect
            window = random_window(height, width, list(draws.windows[row]), widest, NumPyArithmetic())
        top, left, tall, wide = map(int, window)
        return image[:, top : top + tall, left : left + wide]
