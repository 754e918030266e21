"""Images that a model does not take, or labels that do not fit them: what was probably meant, where it shows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

_MOST_CHANNELS = 4
_BATCH_OF_ONE = "make a batch of a single image by images[None]"


@contextmanager
def explaining(model: Callable[..., Any], images: Tensor, *, user: str = "") -> Iterator[None]:
    """Run a model on images [N, C, ...]; if it raises, say what is probably wrong with them.

    Args:
        model: runs within the block.
        images: what it is given.
        user: who gives them, for messages.

    Raises:
        ValueError: in the place of a RuntimeError, whose first line it ends with, if something is.
    """
    try:
        yield
    except (torch.OutOfMemoryError, torch.AcceleratorError):
        raise
    except RuntimeError as error:
        reason = _misfit(model, images)
        if reason is None:
            raise
        first = str(error).split("\n", 1)[0]
        raise ValueError(f"{user and f'{user}: '}the model fails on these images: {reason} ({first})") from error


def _takes_images(model: Callable[..., Any]) -> bool:
    """Whether no convolution says otherwise: the first one's weights have four dimensions."""
    weights = model.parameters() if isinstance(model, nn.Module) else iter(())
    return next((weight.dim() for weight in weights if weight.dim() > 2), 4) == 4


def _misfit(model: Callable[..., Any], images: Tensor) -> str | None:  # [N, C, ...]
    if images.dim() == 3 and _takes_images(model):
        return _BATCH_OF_ONE
    if images.dim() == 4 and images.shape[3] <= _MOST_CHANNELS < min(images.shape[1:3]):
        return f"they must be [N, C, H, W], got {list(images.shape)}: pass images.permute(0, 3, 1, 2)"
    weights = next(model.parameters(), images) if isinstance(model, nn.Module) else images
    if weights.device != images.device:
        return f"they are on {images.device} and its weights on {weights.device}: move one by .to(device)"
    if weights.dtype == images.dtype or torch.is_autocast_enabled(images.device.type):
        return None
    return f"they are {images.dtype} and its weights {weights.dtype}, so convert one by .to(dtype), or use autocast"


def tensor_hint(images: object) -> str:
    """What was given in the place of floating images, and what makes such a tensor of it."""
    if isinstance(images, Tensor):
        return f"got {images.dtype}; PixelSpace.from_pixels makes one from uint8 pixels"
    hint = "; torch.from_numpy makes a tensor of it" if isinstance(images, np.ndarray) else ""
    return f"got {type(images).__name__}{hint}"


def batch_hint(images: Tensor) -> str:
    """What was probably meant by images that have no batch dimension; nothing of images [N, C, H, W]."""
    return f"; {_BATCH_OF_ONE}" if images.dim() == 3 else ""


def labels_hint(images: Tensor, labels: Tensor) -> str:
    """What was probably meant by labels that are not [N], one for each of the images [N, C, ...]."""
    if images.dim() == 3:
        return batch_hint(images)
    if labels.dim() == 2 and labels.shape[1] == 1:
        return "; pass labels.squeeze(1)"
    if labels.dim() == 2 and _one_hot(labels):
        return "; pass labels.argmax(dim=1), of one-hot rows"
    return ""


def _one_hot(labels: Tensor) -> bool:  # [N, K]
    ones = labels.long()
    return bool((labels == ones).all() and (ones >= 0).all() and (ones.sum(dim=1) == 1).all())


def classes_hint(labels: Tensor) -> str:
    """What to say of labels that are not int64: class indices in another dtype, or something else."""
    if labels.dim() == 2 and labels.shape[1] > 1:
        return f" {list(labels.shape)}: pass soft labels as floating-point probabilities, labels.float()"
    if labels.is_complex() or not (labels == labels.long()).all():
        return ", and not all of its values are whole: a class is an index, and soft labels are probabilities [m, K]"
    return ": pass labels.long()"
