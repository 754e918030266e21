"""GPU settings that PyTorch keeps per process: set for a run and restored after it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from fastadv.utils.log import logger


@contextmanager
def gpu_settings(device: torch.device, *, cudnn_benchmark: bool, tf32: bool) -> Iterator[None]:
    """Turn settings on within the block; those that are false stay as they are. Log what was set.

    Args:
        device: the device of the run; a CPU's settings are left alone.
        cudnn_benchmark: let cuDNN try its algorithms for each new shape of a convolution and keep the fastest.
        tf32: let float32 matrix products and convolutions round their factors to TensorFloat-32, with 10 instead of 23
            bits of mantissa.
    """
    asked = [name for name, on in (("cudnn_benchmark", cudnn_benchmark), ("tf32", tf32)) if on]
    if not asked or device.type != "cuda":
        if asked:
            _log("%s: for GPUs, without effect on %s", asked, device)
        yield
        return
    _log("%s: on for this run on %s", asked, device)
    cudnn = torch.backends.cudnn
    with ExitStack() as stack:
        if cudnn_benchmark:
            stack.enter_context(_changed(cudnn, "benchmark", True))
        if tf32:
            stack.enter_context(_changed(cudnn, "allow_tf32", True))
            stack.enter_context(_tf32_in_matrix_products())
        yield


def current_gpu_settings(device: torch.device) -> dict[str, str]:
    """Return the current settings that change what a GPU computes, for records; empty on a CPU."""
    if device.type != "cuda":
        return {}
    held = {
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
        "tf32": torch.backends.cuda.matmul.fp32_precision == "tf32",
    }
    return {name: "on" for name, on in held.items() if on}


def _log(text: str, asked: list[str], device: torch.device) -> None:
    if os.environ.get("RANK", "0") == "0":  # only the first of torchrun's processes
        logger.info(text, " and ".join(asked), device)


@contextmanager
def _changed(settings: Any, name: str, value: bool) -> Iterator[None]:
    before = getattr(settings, name)
    setattr(settings, name, value)
    try:
        yield
    finally:
        setattr(settings, name, before)


@contextmanager
def _tf32_in_matrix_products() -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    if before == "highest":  # other precisions already allow TF32
        torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
