"""ImageSet: decoded images and labels in memory. ImageData: a data set's train and test images."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fastadv.data.sources.base import ImageSource


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Decoded images and their labels.

    Args:
        images: [N, C, H, W] uint8 pixel values.
        labels: [N] int64, indices into ``classes``.
        classes: class names.

    Raises:
        ValueError: if a dtype or shape is wrong, or a label is out of range.
        TypeError: if images or labels are not tensors, or classes are not names.
    """

    images: Tensor  # [N, C, H, W] uint8
    labels: Tensor  # [N] int64
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        for name, value in (("images", self.images), ("labels", self.labels)):
            if not isinstance(value, Tensor):
                raise TypeError(f"{name} must be a tensor, got {type(value).__name__}")
        if isinstance(self.classes, (str, int)):
            raise TypeError(f"classes must be class names, in the order of the labels, got {self.classes!r}")
        if self.images.dtype != torch.uint8 or self.images.dim() != 4:
            raise ValueError(
                f"images must be uint8 [N, C, H, W], got {self.images.dtype} {list(self.images.shape)}; "
                f"eps is in pixel values, so data sets hold pixels and a loader converts them"
            )
        if self.labels.dtype != torch.int64 or self.labels.shape != self.images.shape[:1]:
            raise ValueError(
                f"labels must be int64 [{len(self.images)}], one for each image, "
                f"got {self.labels.dtype} {list(self.labels.shape)}"
            )
        if len(self.labels) == 0:
            return
        low, high = (value.item() for value in self.labels.aminmax())
        if low < 0 or high >= len(self.classes):
            raise ValueError(f"labels must lie in 0..{len(self.classes) - 1}, one of the classes; got {low}..{high}")

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        return f"ImageSet({len(self)} images {list(self.images.shape[1:])}, {len(self.classes)} classes)"


@dataclass(frozen=True, eq=False)
class ImageData:
    """A data set's train and test images, both in memory or both in files.

    Args:
        train: images to train on.
        test: images to measure accuracy on.
    """

    train: ImageSet | ImageSource
    test: ImageSet | ImageSource
