"""Settings of a GPU that PyTorch keeps for the whole process: set for the time of a run, and put back after it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from fastadv.utils.log import logger


@contextmanager
def gpu_settings(device: torch.device, *, cudnn_benchmark: bool, tf32: bool) -> Iterator[None]:
    """Within the block these settings hold; what is false stays as the caller has it. A remark says what was set.

    Args:
        device: that computes; settings are left alone where it is a CPU.
        cudnn_benchmark: cuDNN tries its algorithms for each new shape of a convolution, and keeps the fastest.
        tf32: matrix products and convolutions of float32 may round their factors to TensorFloat-32, 10 bits of mantissa
            in place of 23.
    """
    asked = [name for name, on in (("cudnn_benchmark", cudnn_benchmark), ("tf32", tf32)) if on]
    if not asked or device.type != "cuda":
        if asked:
            _say("%s: for GPUs, without effect on %s", asked, device)
        yield
        return
    _say("%s: on for this run on %s", asked, device)
    cudnn = torch.backends.cudnn
    with ExitStack() as stack:
        if cudnn_benchmark:
            stack.enter_context(_changed(cudnn, "benchmark", True))
        if tf32:
            stack.enter_context(_changed(cudnn, "allow_tf32", True))
            stack.enter_context(_tf32_in_matrix_products())
        yield


def current_gpu_settings(device: torch.device) -> dict[str, str]:
    """The settings that hold now and change what a GPU computes, for records: none on a CPU."""
    if device.type != "cuda":
        return {}
    held = {
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
        "tf32": torch.backends.cuda.matmul.fp32_precision == "tf32",
    }
    return {name: "on" for name, on in held.items() if on}


def _say(text: str, asked: list[str], device: torch.device) -> None:
    if os.environ.get("RANK", "0") == "0":  # of processes that torchrun started, one for all
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
    if before == "highest":  # the others allow TF32 already
        torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
