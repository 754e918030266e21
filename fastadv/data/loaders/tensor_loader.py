"""TensorLoader: batches of a data set in memory, in an order that depends on the seed and epoch alone."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from fastadv.data.in_memory.image_set import ImageSet
from fastadv.data.loaders.batch_sampler import Batches, generator_of
from fastadv.data.transforms.pad_crop import draw_mirrored, draw_shifts, pad_and_crop
from fastadv.ops import from_pixels
from fastadv.pixels import PixelSpace
from fastadv.utils.text import counted
from fastadv.utils.validation import check_count, check_switches


class TensorLoader:
    """Batches of (images [m, C, H, W] float32 in ``space``, labels [m] int64) from an :class:`ImageSet`.

    The images stay on ``device`` as uint8; batches are gathered and converted there. The order depends on (seed, epoch)
    alone, and an image's augmentation on (seed, epoch, index), independent of all other random generators, so that a
    resumed run continues with the batches that an uninterrupted one would have seen.

    Several processes share one order and read it in global batches of ``world_size`` times ``batch_size``, which do not
    depend on the number of processes if their size does not. Each example is read by one process.

    Args:
        image_set: the data.
        batch_size: m, examples per batch of this process.
        space: the model's input space.
        seed: a non-negative integer that fixes order and augmentation, the same for all processes.
        rank: number of this process; it takes rows rank * m to (rank + 1) * m of each global batch.
        world_size: number of processes.
        shuffle: use a new random order in each epoch; otherwise that of the data set.
        drop_last: leave out the examples that do not fill a last global batch; otherwise they are spread evenly, and
            with fewer examples than processes some have one batch less.
        crop_padding: augment by a random crop after padding by this many pixels on each side (4 is usual for CIFAR).
        flip: augment by mirroring half of the images; not for data such as digits, whose class it changes.
        device: device of the batches; None for that of the images.

    Attributes:
        indices: [m] int64, data-set indices of the last batch, on ``device``.

    Raises:
        ValueError: if a size, seed or rank is out of range, ``drop_last`` leaves no batch, or the space does not have
            the images' number of channels.
    """

    def __init__(
        self,
        image_set: ImageSet,
        batch_size: int,
        *,
        space: PixelSpace,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        shuffle: bool = True,
        drop_last: bool = True,
        crop_padding: int = 0,
        flip: bool = False,
        device: torch.device | str | None = None,
    ) -> None:
        if not isinstance(image_set, ImageSet) or not isinstance(space, PixelSpace):
            got = f"{type(image_set).__name__} and {type(space).__name__}"
            raise TypeError(f"TensorLoader takes an ImageSet(images, labels, classes) and a PixelSpace, got {got}")
        check_count("crop_padding", crop_padding, least=0)
        check_switches(shuffle=shuffle, drop_last=drop_last, flip=flip)
        self.batches = Batches(
            count=len(image_set),
            batch_size=batch_size,
            shuffle=shuffle,
            drop_last=drop_last,
            seed=seed,
            rank=rank,
            world_size=world_size,
        )
        channels = image_set.images.shape[1]
        if space.channels not in (1, channels):
            raise ValueError(
                f"the images have {counted(channels, 'channel')} and the space describes {space.channels}: {space}"
            )
        self.space = space
        self.crop_padding = crop_padding
        self.flip = flip
        self._images = image_set.images.to(device)  # [N, C, H, W] uint8
        self._labels = image_set.labels.to(self._images.device)  # [N]
        self.device = self._images.device
        self.indices = torch.empty(0, dtype=torch.int64, device=self.device)

    def __len__(self) -> int:
        """Batches of this process per epoch."""
        return len(self.batches)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of one epoch.

        Args:
            epoch: counts from 0.
            start: the first batch to yield, in 0..len(self), to continue an interrupted epoch.

        Raises:
            ValueError: if epoch or start is out of range.
        """
        return self._load(epoch, self.batches.of_epoch(epoch, start, self.device))

    def _load(self, epoch: int, batches: Iterator[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        shifts, mirrored = self._draw(epoch)
        for indices in batches:
            self.indices = indices  # [m]
            pixels = self._images[indices]  # [m, C, H, W] uint8
            if shifts is not None:
                pixels = pad_and_crop(pixels, self.crop_padding, shifts[:, indices])
            images = from_pixels(pixels, None if mirrored is None else mirrored[indices], space=self.space)
            yield images, self._labels[indices]

    def _draw(self, epoch: int) -> tuple[Tensor | None, Tensor | None]:
        """Draw the crop [2, N] and mirroring [N] of each image in this epoch; None without such augmentation.

        Drawn for all images at once on the CPU, so that each device, process and resumed run gets the same.
        """
        count, generator = len(self._images), generator_of(self.batches.seed, epoch, 0)
        shifts, mirrored = draw_shifts(count, self.crop_padding, generator), draw_mirrored(count, generator)
        return (
            shifts.to(self.device) if self.crop_padding else None,
            mirrored.to(self.device) if self.flip else None,
        )

    def __repr__(self) -> str:
        return (
            f"TensorLoader({len(self._images)} images {list(self._images.shape[1:])}, {self.batches}, "
            f"crop_padding={self.crop_padding}, flip={self.flip}, device={self.device})"
        )
