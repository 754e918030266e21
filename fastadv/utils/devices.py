"""Resolves device names from configurations and command lines."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor

MOST_THREADS = 1024  # with many more, the thread pool crashes instead of raising an error


def resolve(name: str) -> torch.device:
    """Return the device called ``name``; ``"auto"`` is CUDA if there is a GPU, otherwise the CPU.

    The result has an index: ``cuda`` becomes the current GPU, as for PyTorch's own tensors.

    Raises:
        ValueError: if it is not a device name, or this machine does not have the device.
    """
    import torch  # on use: configurations need MOST_THREADS for --help

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"device must be auto, cpu, cuda or cuda:<number>, got {name!r}") from error
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"device must be auto, cpu, cuda or cuda:<number>, got {name!r}")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"device is {name}, but PyTorch finds {torch.cuda.device_count()} CUDA devices here")
    if device.type == "cuda" and device.index is None:
        return torch.device("cuda", torch.cuda.current_device())
    return device


def is_captured(images: Tensor) -> bool:
    """True while a CUDA graph is captured on the images' current stream: values cannot be read then."""
    if not images.is_cuda:
        return False
    import torch

    with torch.cuda.device(images.device):
        return torch.cuda.is_current_stream_capturing()
