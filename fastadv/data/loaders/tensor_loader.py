"""TensorLoader: batches of a data set that lies in memory, in an order that depends on the seed and epoch alone."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from fastadv.data.in_memory.image_set import ImageSet
from fastadv.data.loaders.batch_sampler import Batches, generator_of
from fastadv.data.transforms.pad_crop import draw_mirrored, draw_shifts, shifted
from fastadv.ops import from_pixels
from fastadv.pixels import PixelSpace
from fastadv.utils.validation import check_count, check_switches


class TensorLoader:
    """Batches of (images [m, C, H, W] float32 in ``space``, labels [m] int64) from an :class:`ImageSet`.

    The images stay on ``device`` as uint8; a batch is gathered and converted there. The order is a function of (seed,
    epoch) alone and an image's augmentation of (seed, epoch, its index), apart from every other random generator, so
    that a resumed run continues with the batches that an uninterrupted one would have seen.

    Several processes have one order and read it together, in global batches of ``world_size`` times ``batch_size``: it
    does not depend on their number as long as the global batch does not. Each example is read by one of them.

    Args:
        image_set: the data.
        batch_size: m, the examples in a batch of this process.
        space: the model's input space.
        seed: a non-negative integer that fixes order and augmentation, the same for all processes.
        rank: which of the processes this is; it takes rows rank * m to (rank + 1) * m of each global batch.
        world_size: how many there are.
        shuffle: a new random order in each epoch; otherwise the data set's own order.
        drop_last: leave out the examples that do not fill a last global batch; otherwise they are spread evenly, and
            with fewer examples than processes some have a batch less.
        crop_padding: augment by a random crop after padding by so many pixels on each side (4 is usual for CIFAR).
        flip: augment by mirroring half of the images; for data whose classes survive it, unlike digits.
        device: where batches are made; None for where the images lie.

    Attributes:
        indices: [m] int64, the data-set indices of the batch last yielded, on ``device``.

    Raises:
        ValueError: a size, seed or rank out of range, fewer images than one global batch with ``drop_last``, or a
            space that does not describe the images' channels.
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
            raise ValueError(f"the images have {channels} channels and the space describes {space.channels}: {space}")
        self.space = space
        self.crop_padding = crop_padding
        self.flip = flip
        self._images = image_set.images.to(device)  # [N, C, H, W] uint8
        self._labels = image_set.labels.to(self._images.device)  # [N]
        self.device = self._images.device
        self.indices = torch.empty(0, dtype=torch.int64, device=self.device)

    def __len__(self) -> int:
        """Batches in an epoch, of this process."""
        return len(self.batches)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of one epoch.

        Args:
            epoch: counts from 0.
            start: the first batch to yield, in 0..len(self): where an interrupted epoch continues.

        Raises:
            ValueError: epoch or start out of range.
        """
        return self._loaded(epoch, self.batches.of_epoch(epoch, start, self.device))

    def _loaded(self, epoch: int, batches: Iterator[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        shifts, mirrored = self._draw(epoch)
        for indices in batches:
            self.indices = indices  # [m]
            pixels = self._images[indices]  # [m, C, H, W] uint8
            if shifts is not None:
                pixels = shifted(pixels, self.crop_padding, shifts[:, indices])
            images = from_pixels(pixels, None if mirrored is None else mirrored[indices], space=self.space)
            yield images, self._labels[indices]

    def _draw(self, epoch: int) -> tuple[Tensor | None, Tensor | None]:
        """Where each image is cut out in this epoch [2, N], and whether it is mirrored [N]; None where it is not.

        Drawn for every image at once, on the CPU: each device, process and resumed run gets the same.
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
