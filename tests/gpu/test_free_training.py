"""FreeTask on the GPU: against the CPU, without a wait, and from one to the other."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fastadv import PixelSpace
from fastadv.train import FreeTask
from tests.attacks.models import ConvNet, batch
from tests.gpu.device import DEVICE, needs_streams
from tests.gpu.test_attacks import exact_float32  # noqa: F401 (used by every test)

pytestmark = pytest.mark.gpu

IMAGENET = PixelSpace.imagenet()


def task_on(device: torch.device | str) -> FreeTask:
    return FreeTask(ConvNet().eval().to(device), eps=8, alpha=3, space=IMAGENET)


def train(task: FreeTask, device: torch.device | str, replays: int = 3) -> None:
    images, labels = (tensor.to(device) for tensor in batch(16, IMAGENET))
    for _ in range(replays):
        task(images, labels).backward()


def perturbation(task: FreeTask) -> Tensor:
    [delta] = task.state_dict()["perturbations"]
    assert delta.device.type == "cpu"
    return delta


def test_the_same_on_cpu_and_gpu() -> None:
    """But for elements whose gradient is near zero, as for attacks."""
    cpu, gpu = task_on("cpu"), task_on(DEVICE)
    train(cpu, "cpu")
    train(gpu, DEVICE)
    assert ((perturbation(cpu) - perturbation(gpu)).abs() > 1e-5).sum() <= 8


def test_a_state_goes_on_where_it_is_loaded() -> None:
    cpu, gpu = task_on("cpu"), task_on(DEVICE)
    train(cpu, "cpu")
    gpu.load_state_dict(cpu.state_dict())
    train(cpu, "cpu", replays=1)
    train(gpu, DEVICE, replays=1)
    assert ((perturbation(cpu) - perturbation(gpu)).abs() > 1e-5).sum() <= 8


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
