"""Memory that generation adds to a training step: at the peak, at most a gradient and a copy of the k examples.

With ``fast=True`` an attack also keeps memory between the steps: the folded weights, and on a GPU what its captured
iteration computes with.

On a CPU by the allocations that PyTorch's profiler sees, on a GPU by the caching allocator's own count.
"""

from __future__ import annotations

import pytest
import torch

from benchmarks.harness import TABLES, Table
from benchmarks.memory import kept, peak
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
        "fast",
        "m",
        "k",
        "device",
        "clean step, MB",
        "adversarial step, MB",
        "more, MB",
        "gradient of k, MB",
        "kept between steps, MB",
    ],
    notes=[
        "Memory allocated in addition to what exists before the step, which includes the weights' gradients: "
        "activations, and what generation adds. Kept: memory that the attack allocated in its first steps and holds."
    ],
)
TABLES.append(MEMORY)


class Steps:
    """Training steps of a network that reuse the memory of the weights' gradients."""

    def __init__(self, network: str, attack: str, k: int, fast: bool, device: str) -> None:
        torch.manual_seed(0)
        self.model = models.create(network, num_classes=CLASSES).to(device)
        for parameter in self.model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        options = {"fast": fast}
        self.task = AdversarialTask(self.model, attack=attack, k=k, eps=8, space=UNIT, seed=0, attack_options=options)
        self.images = torch.rand(M, 3, SIZE, SIZE, device=device)
        self.labels = torch.randint(CLASSES, (M,), device=device)

    def step(self) -> None:
        self.model.zero_grad(set_to_none=False)
        self.task(self.images.copy_(self.images.clone()), self.labels).backward()

    def first(self) -> None:
        """The steps in which an attack first sees its images, captures its iteration, and replays it."""
        for _ in range(3):
            self.step()


@pytest.mark.parametrize("device", DEVICES)
def test_the_count_sees_a_tensor(device: str) -> None:
    """Freed memory counts: of two tensors in turn, only one exists at a time."""
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")

    def two_in_turn() -> None:
        for _ in range(2):
            torch.ones(1000, 1000, device=device).add_(1)

    assert peak(two_in_turn, device) == pytest.approx(4e6, rel=0.06)  # CUDA's allocator rounds up to 2 MB


@pytest.mark.parametrize("device", DEVICES)
def test_the_count_sees_what_is_kept(device: str) -> None:
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    held = []

    def two_and_one_held() -> None:
        torch.ones(1000, 1000, device=device)
        held.append(torch.ones(3000, 1000, device=device))

    assert kept(two_and_one_held, device) == pytest.approx(12e6, rel=0.4 if device == "cuda" else 0)  # whole blocks


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("k", [M // 2, M])
@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("attack", ["step_ll", "iter_ll"])
@pytest.mark.parametrize("network", ["small_cnn", "torchvision/resnet18"])
def test_generation_adds_no_more_than_a_gradient_and_a_copy(
    network: str, attack: str, fast: bool, k: int, device: str
) -> None:
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    steps, without = Steps(network, attack, k, fast, device), Steps(network, attack, 0, fast, device)
    without.first()
    held = kept(steps.first, device)
    clean, adversarial = peak(without.step, device), peak(steps.step, device)
    gradient = 4 * k * 3 * SIZE * SIZE
    MEMORY.rows.append(
        [network, attack, "yes" if fast else "", str(M), str(k), device]
        + [f"{value / 1e6:.2f}" for value in (clean, adversarial, adversarial - clean, gradient, held)]
    )
    if device == "cpu":  # a copy of the convolutions' weights, if any, and the last minibatch's logits
        weights = 4 * sum(parameter.numel() for parameter in steps.model.parameters()) if fast else 0
        assert 0.9 * weights <= held <= weights + 4 * M * CLASSES
    assert clean > 2 * gradient  # a step worth the comparison
    # The copy is what the model is given, which may write to it. With the logits' derivative, twice at most: what is
    # small for a network of any size.
    assert adversarial - clean <= 2 * gradient + 2 * 4 * k * CLASSES
