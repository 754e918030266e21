"""Names of devices, as configurations and command lines give them."""

from __future__ import annotations

import torch
from torch import Tensor

MOST_THREADS = 1024  # many more and the thread pool fails by a signal, not an error


def resolve(name: str) -> torch.device:
    """The device that ``name`` stands for; ``"auto"`` is CUDA where there is a GPU, else the CPU.

    A GPU has its number: ``cuda`` is the current one, as PyTorch's own tensors say.

    Raises:
        ValueError: not the name of a device, or of one that is not here.
    """
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
    """Whether a CUDA graph is being captured where these images are worked on: nothing can be read then."""
    if not images.is_cuda:
        return False
    with torch.cuda.device(images.device):
        return torch.cuda.is_current_stream_capturing()
