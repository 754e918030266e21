"""Iterations of Algorithm 1 beside the fastest clean iteration of the same trainer, and beside the floor.

With forward, backward to the images and backward to the weights at one unit each, a clean iteration costs 3, and n
gradients of k images add 2 n k / m: the floor is 1 + 2 n k / (3 m). The clean iteration gets every option that the
adversarial one gets. FASTADV_BENCH_NETWORKS=small_cnn,ResNet-50 chooses networks.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchmarks.device import DEVICE, REHEARSAL, TIMES
from benchmarks.harness import TABLES, Interleaved, Table, device_seconds, whole_seconds
from benchmarks.trainers import CLASSES, random_trainer, step
from fastadv import PixelSpace, attacks, models
from fastadv.train import AttackConfig, TrainConfig

ROUNDS = 2 if REHEARSAL else 5
TRAINING = Table(
    "An iteration of training",
    ["network", "m", "attack", "k", "options", "ms (quartiles)", "clean iterations", "floor"],
    notes=[
        "Clean iterations: the time over that of the fastest clean one. Floor: without BatchNorm folded, which can go "
        "below it."
    ],
)
OUTSIDE = Table(
    "What an attack's iteration costs outside of the network",
    ["network", "N", "attack", "ms of an iteration", "ms outside (quartiles)", "share"],
    notes=[
        "Outside: the same attack on a model of the same layers that calls none of them, and returns some pixels as "
        "logits. Cutting those out and their gradient are in it: an upper bound. On a GPU its own time counts alone: "
        "launches run ahead of it."
    ],
)
TABLES += [TRAINING, OUTSIDE]


@dataclass(frozen=True)
class Case:
    """A network, m, and the side of its images."""

    name: str
    m: int
    side: int


CASES = {
    "small_cnn": Case("small_cnn", 64 * TIMES, 32),
    "ResNet-50": Case("torchvision/resnet50", 8 * TIMES, 224),
    "Inception v3": Case("inception_v3", 4 * TIMES, 299),
}
if REHEARSAL:
    CASES = {"small_cnn": Case("small_cnn", 4, 8)}
CHOSEN = [name for name in CASES if name in os.environ.get("FASTADV_BENCH_NETWORKS", ",".join(CASES)).split(",")]
GRADIENTS = {"step_ll": 1, "iter_ll": 10}


def trainer(case: Case, attack: str, k: int, fast: bool) -> Callable[[], object]:
    torch.manual_seed(0)
    options = {"steps": 10} if attack == "iter_ll" else {}
    config = TrainConfig(m=case.m, attack=AttackConfig(name=attack, k=k, options=options), fast=fast)
    model = models.create(case.name, num_classes=CLASSES)
    made, _ = random_trainer(model, config, size=case.side, device=DEVICE)
    return partial(step, made)


@pytest.mark.parametrize("network", CHOSEN)
def test_training(benchmark: Any, network: str) -> None:
    case = CASES[network]
    half = case.m // 2
    rows = [("step_ll", 0), ("step_ll", half), ("step_ll", case.m), ("iter_ll", half)]
    variants = {(*row, fast): trainer(case, *row, fast) for row in rows for fast in (False, True)}
    interleaved = Interleaved({str(key): call for key, call in variants.items()}, clock=whole_seconds, run_up=1)
    benchmark.group = f"{network}, iterations"
    benchmark.pedantic(interleaved.round, rounds=ROUNDS)
    timings = interleaved.timings()
    clean = min(timings[str(("step_ll", 0, fast))].median for fast in (False, True))
    for attack, k, fast in variants:
        timing = timings[str((attack, k, fast))]
        floor = 1 + 2 * GRADIENTS[attack] * k / (3 * case.m)
        cost = [timing.text, f"{timing.median / clean:.2f}", f"{floor:.2f}"]
        TRAINING.rows.append([network, str(case.m), attack if k else "none", str(k), "fast" if fast else "", *cost])


class Hollow(nn.Module):
    """All layers of a network, none of which is called; logits [N, CLASSES] are the first pixels."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:  # [N, C, H, W]
        return images.flatten(1)[:, :CLASSES]


@pytest.mark.parametrize("network", CHOSEN)
def test_outside_of_the_network(benchmark: Any, network: str) -> None:
    case, n = CASES[network], 32
    model = models.create(case.name, num_classes=CLASSES).to(DEVICE).eval()
    images = torch.rand(n, 3, case.side, case.side, device=DEVICE)
    options: dict[str, Any] = {"eps": 8, "space": PixelSpace.unit(), "validate": "never"}
    whole, outside = (attacks.create("step_ll", made, **options) for made in (model, Hollow(model)))
    clock = device_seconds if DEVICE.type == "cuda" else None
    interleaved = Interleaved(
        {"whole": lambda: whole(images), "outside": lambda: outside(images)}, clock=clock, run_up=1
    )
    benchmark.group = f"{network}, outside"
    benchmark.pedantic(interleaved.round, rounds=ROUNDS)
    total, apart = (interleaved.timings()[part] for part in ("whole", "outside"))
    share = f"{100 * apart.median / total.median:.2f} %"
    OUTSIDE.rows.append([network, str(n), "step_ll", f"{1e3 * total.median:.4g}", apart.text, share])
