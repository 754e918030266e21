"""Images that a model does not take: what its own message leaves out, where the images show it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

_MOST_CHANNELS = 4


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
        return "make a batch of a single image by images[None]"
    if images.dim() == 4 and images.shape[3] <= _MOST_CHANNELS < min(images.shape[1:3]):
        return f"they must be [N, C, H, W], got {list(images.shape)}: pass images.permute(0, 3, 1, 2)"
    weights = next(model.parameters(), images) if isinstance(model, nn.Module) else images
    if weights.device != images.device:
        return f"they are on {images.device} and its weights on {weights.device}: move one by .to(device)"
    if weights.dtype == images.dtype or torch.is_autocast_enabled(images.device.type):
        return None
    return f"they are {images.dtype} and its weights {weights.dtype}, so convert one by .to(dtype), or use autocast"
