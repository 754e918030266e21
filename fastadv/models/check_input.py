"""Tries a network on two images of a given size, before training starts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.func import functional_call

# What networks, and the libraries below them, raise for input of the wrong size.
_SIZE_ERRORS = (AssertionError, AttributeError, IndexError, RuntimeError, TypeError, ValueError, ZeroDivisionError)


def check_accepts(model: nn.Module, shape: Sequence[int], *, count: int = 2) -> Any:
    """Run a model once on black images, in its current mode; buffers and random generators are left unchanged.

    Args:
        model: takes images [N, C, H, W].
        shape: [C, H, W] of an image.
        count: N; in training mode BatchNorm may need more than one.

    Returns:
        What the model returned.

    Raises:
        ValueError: if the model raises; the message has the size and the first line of the error.
    """
    weight = next(model.parameters(), None)
    device = torch.device("cpu") if weight is None else weight.device
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    images = torch.zeros(count, *shape, device=device)  # [N, C, H, W]
    gpus = [torch.cuda.current_device()] if device.type == "cuda" else []
    try:
        with torch.no_grad(), torch.random.fork_rng(gpus):
            return functional_call(model, buffers, (images,))
    except (torch.OutOfMemoryError, torch.AcceleratorError):
        raise  # not about the size of the images
    except _SIZE_ERRORS as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ValueError(f"images [C, H, W] = {list(shape)} do not fit: {reason}") from error
