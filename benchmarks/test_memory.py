"""The memory that generation adds to a training step: at the peak, no more than a gradient of the k examples.

On a CPU by the allocations that PyTorch's profiler sees, on a GPU by the caching allocator's own count.
"""

from __future__ import annotations

import pytest
import torch

from benchmarks.harness import TABLES, Table
from benchmarks.memory import peak
from fastadv import PixelSpace, models
from fastadv.train import AdversarialTask

M, SIZE, CLASSES = 16, 64, 100
UNIT = PixelSpace.unit()
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
MEMORY = Table(
    "Peak memory of a training step",
    [
        "network",
        "attack",
        "m",
        "k",
        "device",
        "clean step, MB",
        "adversarial step, MB",
        "more, MB",
        "gradient of k, MB",
    ],
    notes=[
        "Allocated above what is there before the step, the weights' gradients among it: activations, and what "
        "generation adds."
    ],
)
TABLES.append(MEMORY)


def peak_of_step(network: str, attack: str, k: int, device: str) -> int:
    """Bytes that a step has allocated at its peak, above those before it."""
    torch.manual_seed(0)
    model = models.create(network, num_classes=CLASSES).to(device)
    task = AdversarialTask(model, attack=attack, k=k, eps=8, space=UNIT, seed=0)
    images = torch.rand(M, 3, SIZE, SIZE, device=device)
    labels = torch.randint(CLASSES, (M,), device=device)

    def step() -> None:
        model.zero_grad(set_to_none=False)  # the weights' gradients are the same memory in every step
        task(images.copy_(images.clone()), labels).backward()

    step()
    return peak(step, device)


@pytest.mark.parametrize("device", DEVICES)
def test_the_count_sees_a_tensor(device: str) -> None:
    """And what is freed: two tensors in turn are one at a time."""
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")

    def two_in_turn() -> None:
        for _ in range(2):
            torch.ones(1000, 1000, device=device).add_(1)

    assert peak(two_in_turn, device) == pytest.approx(4e6, rel=0.06)  # CUDA's allocator rounds up to 2 MB


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("k", [M // 2, M])
@pytest.mark.parametrize("attack", ["step_ll", "iter_ll"])
@pytest.mark.parametrize("network", ["small_cnn", "torchvision/resnet18"])
def test_generation_adds_no_more_than_a_gradient(network: str, attack: str, k: int, device: str) -> None:
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    clean, adversarial = peak_of_step(network, attack, 0, device), peak_of_step(network, attack, k, device)
    gradient = 4 * k * 3 * SIZE * SIZE
    MEMORY.rows.append(
        [network, attack, str(M), str(k), device]
        + [f"{value / 1e6:.2f}" for value in (clean, adversarial, adversarial - clean, gradient)]
    )
    assert clean > 2 * gradient  # a step worth the comparison
    # With the logits' derivative, twice at most: what is small for a network of any size.
    assert adversarial - clean <= gradient + 2 * 4 * k * CLASSES
