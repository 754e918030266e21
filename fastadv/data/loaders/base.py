"""ImageLoader: base class of the loaders of encoded images, which differ in how they decode a batch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fastadv.data.loaders.bad_images import MOST_IN_A_ROW, BadImage, too_many, warn_of_bad_image
from fastadv.data.loaders.batch_memory import empty_images
from fastadv.data.loaders.batch_sampler import Batches
from fastadv.data.sources.base import ImageSource
from fastadv.data.transforms.preprocessing import Preprocessing
from fastadv.ops import from_pixels_
from fastadv.pixels import PixelSpace
from fastadv.utils.validation import check_count

CHANNELS = 3


@dataclass(frozen=True, eq=False)
class DecodedBatch:
    """A decoded batch.

    Args:
        images: [m, 3, size, size] float32 in the PixelSpace.
        indices: [m] int64, indices of the images in the data set.
        bad: images that were requested and could not be used.
    """

    images: Tensor
    indices: Tensor
    bad: list[BadImage] = field(default_factory=list)


class ImageLoader(ABC):
    """Batches of (images [m, 3, size, size] float32 in ``space``, labels [m] int64), images in channels_last order.

    The order depends on (seed, epoch), and the augmentation of an image on (seed, epoch, index), whatever the batch,
    process, thread and loader, and also after resuming. Each batch is new memory that the caller may overwrite.

    Args:
        source: the encoded images.
        batch_size: m, the examples in a batch of this process.
        space: the model's input space.
        train: shuffle, drop an incomplete last batch, and augment; otherwise yield each image once over all processes,
            in order and preprocessed for evaluation.
        preprocessing: size, crops and colours.
        seed: a non-negative integer that fixes order and augmentation, the same for all processes.
        rank: number of this process.
        world_size: number of processes; each takes its rows of every global batch of world_size * batch_size.
        device: device of the batches.
        workers: CPU threads, or processes, that decode.
        prefetch: batches prepared ahead.

    Attributes:
        indices: [m] int64, data-set indices of the last batch, on the CPU.
        on_bad_image: called for each image that cannot be used, just before its batch is yielded; warns by default.

    Raises:
        ValueError: if an option is out of range, there are too few images for one batch, or the space has another
            number of channels.
    """

    def __init__(
        self,
        source: ImageSource,
        batch_size: int,
        *,
        space: PixelSpace,
        train: bool,
        preprocessing: Preprocessing = Preprocessing(),  # noqa: B008 (frozen)
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        device: torch.device | str = "cpu",
        workers: int = 1,
        prefetch: int = 2,
    ) -> None:
        if not hasattr(source, "read") or not isinstance(space, PixelSpace):
            got = f"{type(source).__name__} and {type(space).__name__}"
            raise TypeError(
                f"{type(self).__name__} takes images in files, scan(DIR)['train'], and a PixelSpace, got {got}"
            )
        if space.channels not in (1, CHANNELS):
            raise ValueError(f"the images have {CHANNELS} channels and the space describes {space.channels}: {space}")
        check_count("prefetch", prefetch, least=1)
        self.source = source
        self.batches = Batches(
            count=len(source),
            batch_size=batch_size,
            shuffle=train,
            drop_last=train,
            seed=seed,
            rank=rank,
            world_size=world_size,
        )
        self.space = space
        self.train = train
        self.preprocessing = preprocessing
        self.device = torch.device(device)
        self.workers = workers
        self.prefetch = prefetch
        self.on_bad_image: Callable[[BadImage], None] = warn_of_bad_image
        self.indices = torch.empty(0, dtype=torch.int64)

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
            TooManyBadImages: while iterating, if too many images in a row cannot be used; an OSError.

        Warns:
            BadImageWarning: for each image that cannot be used, unless ``on_bad_image`` is replaced.
        """
        return self._yield_batches(self._load(epoch, list(self.batches.of_epoch(epoch, start))))

    def _yield_batches(self, batches: Iterator[DecodedBatch]) -> Iterator[tuple[Tensor, Tensor]]:
        in_a_row: list[BadImage] = []
        for batch in batches:
            for bad in batch.bad:
                self.on_bad_image(bad)
            if len(batch.indices) == 0:  # in evaluation, if no image of the batch can be used
                in_a_row += batch.bad
                if len(in_a_row) >= MOST_IN_A_ROW:
                    raise too_many(in_a_row)
                continue
            in_a_row.clear()
            self.indices = batch.indices
            labels = self.source.labels[batch.indices]  # [m]
            yield batch.images, labels.to(self.device, non_blocking=True)

    def _images(self, pixels: Tensor, mirrored: Tensor | None) -> Tensor:
        """Convert pixels [m, 3, size, size] uint8 to images in the space, mirrored where ``mirrored`` [m] is true."""
        images = empty_images(len(pixels), CHANNELS, self.preprocessing.size, self.device)  # [m, 3, size, size]
        if self.device.type == "cpu":
            for row, one in enumerate(pixels):
                self._put(images, row, one, mirrored)
            return images
        pixels = pixels.to(self.device, non_blocking=True)
        mirrored = None if mirrored is None else mirrored.to(self.device, non_blocking=True)
        return from_pixels_(images, pixels, mirrored, self.space)

    def _put(self, images: Tensor, row: int, pixels: Tensor, mirrored: Tensor | None) -> None:
        """Convert the pixels [3, size, size] uint8 of one image of a batch on the CPU.

        Uses this thread alone: torch's other threads would then spin on the cores that decode.
        """
        one = slice(row, row + 1)
        from_pixels_(images[one], pixels[None], None if mirrored is None else mirrored[one], self.space)

    @abstractmethod
    def _load(self, epoch: int, batches: list[Tensor]) -> Iterator[DecodedBatch]:
        """Decode the batches of these data-set indices, one for each and in order."""

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({len(self.source)} images, {self.batches}, {self.preprocessing}, "
            f"space={self.space}, device={self.device}, workers={self.workers}, prefetch={self.prefetch})"
        )
