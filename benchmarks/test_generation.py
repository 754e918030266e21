"""Whole attacks, including the network's passes: fastadv compared with other packages, in default and best use.

Default: a model in evaluation mode, otherwise unchanged. Best: parameters frozen by the caller, channels_last, and the
package's cheapest call. Everything is in float32 and on one device, a GPU if there is one. All packages make the same
images, which is also checked: by the pixels after one step, and after ten, when rounding can have changed half of an
untrained network's pixels, by the gain of the attack. Rounds go on for 45 seconds, but at least 3 and at most 15.
FASTADV_BENCH_NETWORKS=small_cnn,ResNet-50 selects networks.
"""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn

from benchmarks.device import DEVICE, REHEARSAL, SECONDS, TIMES
from benchmarks.harness import TABLES, Interleaved, Table, whole_seconds
from benchmarks.memory import peak
from benchmarks.operators import Operators
from benchmarks.peers import PEERS, Generate
from fastadv import attacks, models

QUANTUM = 0.05 if DEVICE.type == "cuda" else 0.0  # on a CPU, one call is long enough to be timed
GENERATION = Table(
    "Generation of adversarial examples",
    [
        *("network", "N", "attack, steps", "package", "ms (quartiles)", "images/s"),
        *("torchattacks' default takes (quartiles)", "rounds", "forwards", "backwards", "for weights"),
        *("full-size operators", "full-size tensors", "peak MB"),
    ],
    notes=[
        "torchattacks' default takes: its time divided by that of the row, in the same round. Forwards and backwards: "
        "passes of the network in a call, counted at its convolutions; for weights: backward passes that also "
        "computed gradients of weights, which are not used. Full-size: operators per iteration that read or write a "
        "tensor of the images' shape, and how many such tensors they allocate, apart from the network's convolutions. "
        "Peak: PyTorch's memory in a call, in addition to what was allocated before, without NumPy's. Operators in a "
        "compiled function are not counted; for a CUDA graph, those of its recording are."
    ],
)
TABLES.append(GENERATION)
ATTACKS = {"fgsm": 1, "step_ll": 1, "iter_basic": 10}  # steps


@dataclass(frozen=True)
class Case:
    """A network and its images.

    Args:
        make: makes the network.
        side: height and width of the images.
        batch: number of images for one step and for ten steps, on a CPU.
        compiled: attacks also timed with compile=True, which takes minutes for a large network.
    """

    make: Callable[[], nn.Module]
    side: int
    batch: tuple[int, int]
    compiled: Collection[str]


CASES = {
    "small_cnn": Case(lambda: models.create("small_cnn", num_classes=10), 32, (128, 64), ATTACKS),
    "ResNet-50": Case(lambda: torchvision.models.resnet50(num_classes=1000), 224, (8, 1), ["step_ll"]),
    "Inception v3": Case(lambda: models.create("inception_v3", num_classes=1000), 299, (4, 1), []),
}
if REHEARSAL:
    CASES = {"small_cnn": Case(CASES["small_cnn"].make, 8, (2, 2), [])}
CHOSEN = os.environ.get("FASTADV_BENCH_NETWORKS", ",".join(CASES)).split(",")
GENERATION.wanted += [(network, f"{attack}, {steps}") for network in CASES for attack, steps in ATTACKS.items()]
COMPILED = "fastadv, best, fast=True, compile=True"
# Operators of the network itself that read and write images.
OF_THE_NETWORK = ("convolution", "convolution_backward")


def ours(model: nn.Module, attack: str, steps: int, **options: Any) -> Generate:
    options |= {} if steps == 1 else {"steps": steps, "alpha": 1}
    return attacks.create(attack, model, eps=8, validate="never", **options)


class Bench:
    """An attack on a network in every package: one call each, doing the same work."""

    def __init__(self, case: Case, attack: str, steps: int) -> None:
        torch.manual_seed(0)
        self.steps = steps
        n = TIMES * case.batch[steps > 1]
        self.images = torch.rand(n, 3, case.side, case.side, device=DEVICE)
        plain = case.make().eval().to(DEVICE)
        best = case.make().eval().to(DEVICE)
        best.load_state_dict(plain.state_dict())
        best.requires_grad_(False).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        last = self.images.contiguous(memory_format=torch.channels_last)
        with torch.no_grad():
            self.labels = labels = plain(self.images).argmax(dim=1)
        self.plain = plain
        self.calls: dict[str, Callable[[], Tensor]] = {}
        for peer, make in PEERS.items():
            for use, model, x in (("default", plain, self.images), ("best", best, last)):
                self._add(f"{peer}, {use}", make(model, attack, steps, x, use == "best"), x, labels)
        self._add("fastadv, default", ours(plain, attack, steps), self.images, labels)
        self._add("fastadv, fast=True", ours(plain, attack, steps, fast=True), self.images, labels)
        self._add("fastadv, best", ours(best, attack, steps), last, labels)
        self._add("fastadv, best, fast=True", ours(best, attack, steps, fast=True), last, labels)
        if attack in case.compiled and DEVICE.type == "cpu":  # test_options has it on a GPU
            compiled = ours(best, attack, steps, fast=True, compile=True)
            self._add(COMPILED, compiled, last, labels)
        with Operators(self.images) as self.once, torch.no_grad():
            plain(self.images)

    def _add(self, name: str, generate: Generate | None, x: Tensor, labels: Tensor) -> None:
        if generate is None:
            return
        if "fast=True" in name and name != COMPILED:
            generate(x[:1], labels[:1])  # finds the layers to fold, which happens once and is not part of a call
        self.calls[name] = lambda: generate(x, labels)

    def first(self, name: str) -> tuple[Tensor, list[str]]:
        """Make a call; returns its images [N, C, H, W] and the table's counts, except for memory."""
        if name == COMPILED:
            return self.calls[name](), [""] * 5
        with Operators(self.images) as counted:
            made = self.calls[name]()
        size = self.once.names["convolution"]
        passes = (counted.names["convolution"], counted.names["convolution_backward"], counted.weight_gradients)
        full_size = (self._an_iteration(counter) for counter in (counted.moving, counted.full_size))
        return made, [*(f"{count / size:.3g}" for count in passes), *full_size]

    @torch.no_grad()
    def gain(self, adv: Tensor) -> float:  # [N, C, H, W]
        """The cost of the true classes above that on clean images."""
        costs = [nn.functional.cross_entropy(self.plain(x).double(), self.labels) for x in (adv, self.images)]
        return float(costs[0] - costs[1])

    def agree(self, adv: Tensor, other: Tensor) -> bool:
        """Whether two packages have made the same: all but the pixels whose gradient is nearly zero."""
        if self.steps == 1:
            return bool(((adv - other).abs() > 1e-3).float().mean() < 0.05)
        return self.gain(adv) == pytest.approx(self.gain(other), rel=0.02)

    def _an_iteration(self, counter: Counter[str]) -> str:
        """Of what was counted in a call, the part that the network has not run itself."""
        return f"{sum(n for name, n in counter.items() if name not in OF_THE_NETWORK) / self.steps:.3g}"


@pytest.fixture(autouse=True)
def quiet() -> None:
    """Suppress the warnings of other packages."""
    warnings.simplefilter("ignore")


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("network", [name for name in CASES if name in CHOSEN])
def test_generation(benchmark: Any, network: str, attack: str) -> None:
    steps = ATTACKS[attack]
    bench = Bench(CASES[network], attack, steps)
    first = {name: bench.first(name) for name in bench.calls}
    for name, (adv, _) in first.items():
        assert bench.agree(adv, first["fastadv, default"][0]), name
    memory = {name: f"{peak(call, DEVICE.type) / 1e6:.0f}" for name, call in bench.calls.items()}
    interleaved = Interleaved(bench.calls, quantum=QUANTUM, clock=whole_seconds, run_up=0)
    benchmark.group = f"{network}, {attack}"
    benchmark.pedantic(interleaved.run, args=(SECONDS,), rounds=1)
    n, base = len(bench.images), "torchattacks, default"
    for name, timing in interleaved.timings().items():
        ratio = f"{interleaved.ratio(base, name).text} x" if base in bench.calls else ""
        speed = [timing.text, f"{n / timing.median:.1f}", ratio, str(interleaved.rounds)]
        counts = [*first[name][1], memory[name]]
        GENERATION.rows.append([network, str(n), f"{attack}, {steps}", name, *speed, *counts])
