"""Whether a network takes images of some size: found out on two of them, before there is anything to lose."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.func import functional_call

# What networks raise, and the libraries below them.
_REFUSALS = (AssertionError, AttributeError, IndexError, RuntimeError, TypeError, ValueError, ZeroDivisionError)


def check_accepts(model: nn.Module, shape: Sequence[int], *, count: int = 2) -> None:
    """Run a model once, in the mode that it is in, on black images; buffers and generators stay as they were.

    Args:
        model: from images [N, C, H, W].
        shape: [C, H, W] of an image.
        count: N; BatchNorm may need more than one in training mode.

    Raises:
        ValueError: the model raised; the message has the size, and the first line of the reason.
    """
    device = next(model.parameters()).device
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    images = torch.zeros(count, *shape, device=device)  # [N, C, H, W]
    gpus = [torch.cuda.current_device()] if device.type == "cuda" else []
    try:
        with torch.no_grad(), torch.random.fork_rng(gpus):
            functional_call(model, buffers, (images,))
    except (torch.OutOfMemoryError, torch.AcceleratorError):
        raise  # the device's trouble, whatever the size of the images
    except _REFUSALS as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ValueError(f"images [C, H, W] = {list(shape)} do not fit: {reason}") from error
