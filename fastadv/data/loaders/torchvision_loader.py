"""TorchvisionLoader: Pillow decodes, torchvision cuts and resizes, processes share the work. Runs everywhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from fastadv.data.loaders.bad_images import BadImage, TooManyBadImages, replaced
from fastadv.data.loaders.base import CHANNELS, ImageLoader, Loaded
from fastadv.data.sources.base import ImageSource
from fastadv.data.transforms.decode import decode, formats_here
from fastadv.data.transforms.preprocessing import Draws, NumPyArithmetic, Preprocessing, central_window, random_window
from fastadv.data.transforms.resize import prepared
from fastadv.utils.optional_deps import require
from fastadv.utils.signals import block_signals, obey_parent_only

# Pixels [m, 3, size, size] uint8; which are to be mirrored [m]; indices [m]; what was passed over.
_Batch = tuple[Tensor, Tensor | None, Tensor, list[BadImage]]


class TorchvisionLoader(ImageLoader):
    """The loader that needs no more than torchvision: the reference for :class:`DaliLoader`, and its stand-in.

    ``workers`` processes decode and resize; with 0 it is done in this one, when a batch is asked for. What travels from
    them, and to a GPU, has 8 bits a value; :func:`fastadv.ops.from_pixels` makes the batch of it. Arguments, attributes
    and errors are those of :class:`ImageLoader`.

    Raises:
        ModuleNotFoundError: torchvision or Pillow is not installed.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        # Imported here, before workers are forked: each would take seconds to do it, in each epoch.
        for module in ("PIL.Image", "torchvision.transforms.v2.functional"):
            require(module, extra="train")
        formats_here()

    def _load(self, epoch: int, batches: list[Tensor]) -> Iterator[Loaded]:
        loader: DataLoader[_Batch | TooManyBadImages] = DataLoader(
            _Examples(self.source, self.preprocessing, self.train, self.batches.seed, epoch),
            batch_sampler=[indices.tolist() for indices in batches],
            collate_fn=_as_it_is,
            num_workers=self.workers,
            prefetch_factor=self.prefetch if self.workers else None,
            # Whatever Python's usual way is: what is imported here, and a million names, they inherit in each epoch.
            multiprocessing_context="fork" if self.workers else None,
            pin_memory=self.device.type == "cuda",
            generator=torch.Generator(),  # of its own: it draws once an iterator, and dropout from the default one
            worker_init_fn=_at_the_start,
        )
        with block_signals():  # which the workers are started in: a signal may come before they are ready
            loaded = iter(loader)
        for batch in loaded:
            if isinstance(batch, TooManyBadImages):
                raise batch
            pixels, mirrored, indices, bad = batch
            yield Loaded(self._images(pixels, mirrored), indices, bad)


def _at_the_start(worker: int) -> None:
    obey_parent_only()


def _as_it_is(batch: Any) -> Any:
    return batch


@dataclass(frozen=True, eq=False)
class _Examples(Dataset[Any]):
    """The examples of one epoch, for DataLoader, which asks for a batch of them at a time."""

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
        except TooManyBadImages as error:  # DataLoader would make a traceback of the message
            return error

    def _batch(self, indices: Sequence[int]) -> _Batch:
        decoded: list[Tensor] = []  # [3, H, W] uint8 each
        used: list[int] = []
        passed_over: list[BadImage] = []

        def reason_against(index: int) -> str | None:
            try:
                decoded.append(decode(self.source.read(index)))
            except (OSError, ValueError) as error:
                return str(error)
            return None

        for wanted in indices:
            index, bad = replaced(self.source, wanted, self.train, reason_against)
            used += [] if index is None else [index]
            passed_over += bad
        draws = self.preprocessing.draw(self.seed, self.epoch, used) if self.train else None
        mirrored = None if draws is None else torch.from_numpy(draws.mirrored)  # [m]
        size, interpolation = self.preprocessing.size, self.preprocessing.interpolation
        pixels = torch.empty((len(used), size, size, CHANNELS), dtype=torch.uint8)
        for row, image in enumerate(decoded):
            pixels.numpy()[row] = prepared(self._window(image, draws, row), size, draws, row, interpolation)
        return pixels.permute(0, 3, 1, 2), mirrored, torch.tensor(used, dtype=torch.int64), passed_over

    def _window(self, image: Tensor, draws: Draws | None, row: int) -> Tensor:  # [3, H, W] -> [3, tall, wide]
        height, width = map(np.float64, image.shape[1:])
        if draws is None:
            central, keep_aspect = self.preprocessing.central, self.preprocessing.keep_aspect
            window = central_window(height, width, central, NumPyArithmetic(), keep_aspect=keep_aspect)
        else:
            widest = self.preprocessing.widest_aspect
            window = random_window(height, width, list(draws.windows[row]), widest, NumPyArithmetic())
        top, left, tall, wide = map(int, window)
        return image[:, top : top + tall, left : left + wide]
