"""FreeTask on the GPU: against the CPU, without a wait, and from one to the other."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fastadv import PixelSpace
from fastadv.train import FreeTask
from tests.attacks.models import ConvNet, batch
from tests.gpu.agreement import assert_agree
from tests.gpu.device import DEVICE, needs_streams

pytestmark = pytest.mark.gpu

IMAGENET = PixelSpace.imagenet()


DTYPES = [torch.float32, torch.float64]


def task_on(device: torch.device | str, dtype: torch.dtype = torch.float32) -> FreeTask:
    return FreeTask(ConvNet().eval().to(device, dtype), eps=8, alpha=3, space=IMAGENET)


def train(task: FreeTask, device: torch.device | str, dtype: torch.dtype, replays: int = 3) -> None:
    images, labels = (tensor.to(device) for tensor in batch(16, IMAGENET, dtype))
    for _ in range(replays):
        task(images, labels).backward()


def perturbation(task: FreeTask) -> Tensor:
    [delta] = task.state_dict()["perturbations"]
    assert delta.device.type == "cpu"
    return delta


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_same_on_cpu_and_gpu(dtype: torch.dtype) -> None:
    cpu, gpu = task_on("cpu", dtype), task_on(DEVICE, dtype)
    train(cpu, "cpu", dtype)
    train(gpu, DEVICE, dtype)
    assert_agree(perturbation(gpu), perturbation(cpu))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_state_goes_on_where_it_is_loaded(dtype: torch.dtype) -> None:
    cpu, gpu = task_on("cpu", dtype), task_on(DEVICE, dtype)
    train(cpu, "cpu", dtype)
    gpu.load_state_dict(cpu.state_dict())
    train(cpu, "cpu", dtype, replays=1)
    train(gpu, DEVICE, dtype, replays=1)
    assert_agree(perturbation(gpu), perturbation(cpu))


@needs_streams
def test_an_iteration_waits_for_nothing() -> None:
    """But for the look at the first minibatch."""
    task = task_on(DEVICE)
    images, labels = (tensor.to(DEVICE) for tensor in batch(16, IMAGENET))
    task(images, labels).backward()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        task(images, labels).backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
