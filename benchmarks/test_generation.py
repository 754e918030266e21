"""Whole attacks, the network's passes included: ours beside other packages', in their default and in their best use.

Default: a model in evaluation mode, as it was made. Best: its parameters frozen by the caller, in channels_last, and
called in the package's cheapest way.
Everything is in one precision, float32, and on one device, a GPU where there is one. All make the same images: a test
looks at that, too: at the pixels after one step; after ten, in which a rounding can grow to half of an untrained
network's pixels, at what the attack gained. Rounds go on for 45 seconds, but for 3 rounds at least and 15 at most.
FASTADV_BENCH_NETWORKS=small_cnn,ResNet-50 chooses networks.
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

QUANTUM = 0.05 if DEVICE.type == "cuda" else 0.0  # on the CPU a call is long enough to be timed alone
GENERATION = Table(
    "Generation of adversarial examples",
    [
        *("network", "N", "attack, steps", "package", "ms (quartiles)", "images/s"),
        *("torchattacks' default takes (quartiles)", "rounds", "forwards", "backwards", "for weights"),
        *("full-size operators", "full-size tensors", "peak MB"),
    ],
    notes=[
        "torchattacks' default takes: so many times as long, in the same round. Forwards and backwards: of the network "
        "in a call, counted at its convolutions; for weights: those of the backwards that computed a weight's gradient "
        "as well, which nobody reads. Full-size: what reads or writes a tensor of the images' shape, and how many of "
        "these are made, an iteration, besides the network's convolutions. Peak: of PyTorch's memory in a call, above "
        "what was there before; NumPy's is not counted. What runs in a compiled function is not counted; a CUDA graph "
        "replays what was."
    ],
)
TABLES.append(GENERATION)
ATTACKS = {"fgsm": 1, "step_ll": 1, "iter_basic": 10}  # steps


@dataclass(frozen=True)
class Case:
    """A network, and the images that it takes.

    Args:
        make: the network.
        side: of the images.
        batch: how many of them for one step, and how many for ten, on a CPU.
        compiled: attacks that are also timed with compile=True, which takes minutes for a large network.
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
# What reads and writes images for the network itself.
OF_THE_NETWORK = ("convolution", "convolution_backward")


def ours(model: nn.Module, attack: str, steps: int, **options: Any) -> Generate:
    options |= {} if steps == 1 else {"steps": steps, "alpha": 1}
    return attacks.create(attack, model, eps=8, validate="never", **options)


class Bench:
    """An attack on a network by every package: a call each, of the same work."""

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
            generate(x[:1], labels[:1])  # layers to fold are looked for once, which is no part of a call
        self.calls[name] = lambda: generate(x, labels)

    def first(self, name: str) -> tuple[Tensor, list[str]]:
        """A call's images [N, C, H, W], and the table's counts of what it ran, but for memory."""
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
    """Other packages warn of this and that."""
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
