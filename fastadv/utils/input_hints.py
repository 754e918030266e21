"""Hints for errors that wrong images or labels cause: what is probably wrong, and what to pass instead."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fastadv.utils.text import counted

_MOST_CHANNELS = 4
_BATCH_OF_ONE = "make a batch of a single image by images[None]"
# Reasons for a missing gradient, by the words in PyTorch's error.
_GRADIENT_ERRORS = {
    "use_reentrant=True": (
        "the model calls torch.utils.checkpoint with use_reentrant=True, which gives the images no gradient apart from "
        "the weights: pass use_reentrant=False, or turn checkpointing off"
    ),
    "modified by an inplace operation": (
        "the model overwrites a tensor that its gradient needs: replace the in-place operation (such as clamp_, or a "
        "layer with inplace=True) by the one that returns a new tensor"
    ),
}


@contextmanager
def explain_model_errors(model: Callable[..., Any], images: Tensor, *, user: str = "") -> Iterator[None]:
    """Within the block a model runs on images [N, C, ...]; if it raises, add what is probably wrong with them.

    Args:
        model: the model.
        images: its input.
        user: the caller's name, for messages.

    Raises:
        ValueError: instead of a RuntimeError with a known cause; it ends with the first line of that error.
    """
    try:
        yield
    except (torch.OutOfMemoryError, torch.AcceleratorError):
        raise
    except RuntimeError as error:
        reason = _cause(model, images, str(error))
        if reason is None:
            raise
        first = str(error).split("\n", 1)[0]
        raise ValueError(f"{user and f'{user}: '}the model fails on these images: {reason} ({first})") from error


@contextmanager
def explain_gradient_errors(user: str) -> Iterator[None]:
    """Within the block a gradient is computed through a model; if that raises, say what in the model prevents it.

    Args:
        user: the caller's name, for messages.

    Raises:
        ValueError: instead of a RuntimeError with a known cause.
    """
    try:
        yield
    except (torch.OutOfMemoryError, torch.AcceleratorError):
        raise
    except RuntimeError as error:
        reason = next((reason for words, reason in _GRADIENT_ERRORS.items() if words in str(error)), None)
        if reason is None:
            raise
        raise ValueError(f"{user}: there is no gradient to the images: {reason}") from error


def _takes_images(model: Callable[..., Any]) -> bool:
    """Whether no convolution says otherwise: the first one's weights have four dimensions."""
    weights = model.parameters() if isinstance(model, nn.Module) else iter(())
    return next((weight.dim() for weight in weights if weight.dim() > 2), 4) == 4


def _has_policy(module: Any) -> bool:
    """True if FSDP, of either version, runs a module with weights in another dtype than it keeps them in."""
    state = module._get_fsdp_state() if hasattr(module, "_get_fsdp_state") else module
    policy = getattr(state, "_mp_policy", getattr(state, "mixed_precision", None))
    return getattr(policy, "param_dtype", None) is not None


def _cause(model: Callable[..., Any], images: Tensor, message: str) -> str | None:  # [N, C, ...]
    if "a leaf Variable that requires grad" in message:
        return (
            "it overwrites them, and they need a gradient: begin its forward with x = x.clone(), or pass inplace=False "
            "to its first layer"
        )
    if images.dim() == 3 and _takes_images(model):
        return _BATCH_OF_ONE
    if images.dim() == 4 and images.shape[3] <= _MOST_CHANNELS < min(images.shape[1:3]):
        return f"they must be [N, C, H, W], got {list(images.shape)}: pass images.permute(0, 3, 1, 2)"
    weights = next(model.parameters(), images) if isinstance(model, nn.Module) else images
    if weights.device != images.device:
        return f"they are on {images.device} and its weights on {weights.device}: move one by .to(device)"
    if "type" in message and isinstance(model, nn.Module) and any(map(_has_policy, model.modules())):
        return (
            "FSDP's mixed-precision policy converts its weights, but not its buffers, such as BatchNorm's running "
            "statistics, nor the images if cast_forward_inputs is false: shard it without a policy, and use autocast"
        )
    if weights.dtype == images.dtype or torch.is_autocast_enabled(images.device.type):
        return None
    return f"they are {images.dtype} and its weights {weights.dtype}: convert one by .to(dtype), or use autocast"


def refuse_func_transforms(user: str) -> None:
    """Raise inside a transform of torch.func, where torch.autograd.grad does not work.

    Raises:
        RuntimeError: if there is one.
    """
    if not torch.compiler.is_compiling() and torch._C._functorch.maybe_current_level() is not None:
        raise RuntimeError(
            f"{user} cannot run inside torch.func.grad, vmap or another transform of torch.func: make the adversarial "
            f"images before it, and pass them to the transformed function"
        )


def images_hint(images: object) -> str:
    """Return what was given in place of floating images, and how to convert it."""
    if isinstance(images, Tensor):
        return f"got {images.dtype}; convert uint8 pixels with PixelSpace.from_pixels"
    hint = "; convert it with torch.from_numpy" if isinstance(images, np.ndarray) else ""
    return f"got {type(images).__name__}{hint}"


def batch_dim_hint(images: Tensor) -> str:
    """Return a hint for images without a batch dimension; "" for other images."""
    return f"; {_BATCH_OF_ONE}" if images.dim() == 3 else ""


def labels_shape_hint(images: Tensor, labels: Tensor) -> str:
    """Return a hint for labels whose shape is not [N] for images [N, C, ...]; "" if there is nothing to suggest."""
    if images.dim() == 3:
        return batch_dim_hint(images)
    if labels.dim() == 2 and labels.shape[1] == 1:
        return "; pass labels.squeeze(1)"
    if labels.dim() == 2 and _one_hot(labels):
        return "; pass labels.argmax(dim=1), of one-hot rows"
    return ""


def _one_hot(labels: Tensor) -> bool:  # [N, K]
    ones = labels.long()
    return bool((labels == ones).all() and (ones >= 0).all() and (ones.sum(dim=1) == 1).all())


def soft_labels_hint(labels: Tensor) -> str:
    """Return a hint for labels that are not int64, to a function that also takes soft labels [m, K]."""
    if labels.dim() == 2 and labels.shape[1] > 1:
        return f" {list(labels.shape)}: pass soft labels as floating-point probabilities, labels.float()"
    if labels.is_complex() or not (labels == labels.long()).all():
        return ", and not all of its values are whole: a class is an index, and soft labels are probabilities [m, K]"
    return ": pass labels.long()"


def class_indices_hint(labels: object) -> str:
    """Return what was given in place of integer labels [N], and how to convert it to class indices if that is known."""
    if isinstance(labels, np.ndarray):
        return "ndarray: pass torch.from_numpy(labels)"
    if isinstance(labels, (list, tuple)):
        return f"{type(labels).__name__}: pass torch.tensor(labels)"
    if not isinstance(labels, Tensor):
        return type(labels).__name__
    got = f"{labels.dtype} {list(labels.shape)}"
    if labels.is_complex():
        return got
    if labels.dim() == 2 and labels.shape[1] > 1:  # soft or one-hot; argmax does not take booleans
        whole = ".long()" if labels.dtype == torch.bool else ""
        return f"{got}: pass one class per image, labels{whole}.argmax(dim=1)"
    if labels.is_floating_point() and not (labels == labels.long()).all():
        return f"{got}, and not all of its values are whole numbers"
    return f"{got}: pass labels.long()" + (".squeeze(1)" if labels.dim() == 2 else "")


@contextmanager
def explain_label_errors(user: str) -> Iterator[None]:
    """Within the block, an operator's error about a label out of range names the caller instead of the operator.

    Raises:
        ValueError: instead of the operator's error.
    """
    try:
        yield
    except (ValueError, RuntimeError) as error:  # torch.compile passes on the C++ error, a RuntimeError
        found = re.search(r"labels must be in \[0, (\d+)\), got (-?\d+)", str(error))
        if found is None:
            raise
        raise ValueError(labels_refusal(user, int(found[1]), int(found[2]))) from error


def check_labels_in_range(user: str, labels: Tensor, classes: int) -> None:
    """Refuse labels [N] that are none of a model's classes. Waits for the device.

    Raises:
        ValueError: if there are any.
    """
    if len(labels):
        least, most = (int(end) for end in labels.aminmax())
        if least < 0 or most >= classes:
            raise ValueError(labels_refusal(user, classes, most if most >= classes else least))


def labels_refusal(user: str, classes: int, label: int) -> str:
    """Return the message for a label that is none of a model's classes."""
    return f"{user}: labels must be in [0, {classes}), the model's {counted(classes, 'class')}, got {label}"
