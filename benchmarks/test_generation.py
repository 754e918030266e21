"""Whole attacks, the network's passes included: ours beside other packages', in their default and in their best use.

Default: a model in evaluation mode, as it was made. Best: its parameters frozen by the caller, and in channels_last.
Everything is in one precision, float32, and on one device, a GPU where there is one. All make the same images: a test
looks at that, too. FASTADV_BENCH_NETWORKS=small_cnn,ResNet-50 chooses networks.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn

from benchmarks.device import DEVICE, REHEARSAL, TIMES
from benchmarks.harness import TABLES, Interleaved, Table, whole_seconds
from benchmarks.memory import peak
from benchmarks.operators import Operators
from benchmarks.peers import PEERS, Generate
from fastadv import attacks, models

ROUNDS = 2 if REHEARSAL else 5
GENERATION = Table(
    "Generation of adversarial examples",
    [
        *("network", "N", "attack, steps", "package", "ms (quartiles)", "images/s"),
        *("torchattacks' default takes", "forwards", "backwards", "for weights", "full-size tensors", "peak MB"),
    ],
    notes=[
        "torchattacks' default takes: so many times as long. Forwards and backwards: of the network in a call, counted "
        "at its convolutions; for weights: those of the backwards that computed a weight's gradient as well, which "
        "nobody reads. Full-size tensors: those of the images' shape that a call made. Peak: of PyTorch's memory, "
        "above what was there before; NumPy's is not counted. What runs in a compiled function or a CUDA graph is "
        "not counted."
    ],
)
TABLES.append(GENERATION)


@dataclass(frozen=True)
class Case:
    """A network, and the images that it takes: how many for one step, how many for ten, on a CPU."""

    make: Callable[[], nn.Module]
    side: int
    batch: tuple[int, int]
    compiled: bool


CASES = {
    "small_cnn": Case(lambda: models.create("small_cnn", num_classes=10), 32, (128, 64), True),
    "ResNet-50": Case(lambda: torchvision.models.resnet50(num_classes=1000), 224, (8, 2), True),
    # Compiled, it would take most of the time of all benchmarks.
    "Inception v3": Case(lambda: models.create("inception_v3", num_classes=1000), 299, (8, 2), False),
}
if REHEARSAL:
    CASES = {"small_cnn": Case(CASES["small_cnn"].make, 8, (2, 2), False)}
CHOSEN = os.environ.get("FASTADV_BENCH_NETWORKS", ",".join(CASES)).split(",")
ATTACKS = {"fgsm": 1, "step_ll": 1, "iter_basic": 10}  # steps


def ours(model: nn.Module, attack: str, steps: int, **options: Any) -> Generate:
    options |= {} if steps == 1 else {"steps": steps, "alpha": 1}
    return attacks.create(attack, model, eps=8, validate="never", **options)


class Bench:
    """An attack on a network by every package: a call each, of the same work."""

    def __init__(self, case: Case, attack: str, steps: int) -> None:
        torch.manual_seed(0)
        n = TIMES * case.batch[steps > 1]
        self.images = torch.rand(n, 3, case.side, case.side, device=DEVICE)
        plain = case.make().eval().to(DEVICE)
        best = case.make().eval().to(DEVICE)
        best.load_state_dict(plain.state_dict())
        best.requires_grad_(False).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        last = self.images.contiguous(memory_format=torch.channels_last)
        with torch.no_grad():
            labels = plain(self.images).argmax(dim=1)
        self.calls: dict[str, Callable[[], Tensor]] = {}
        for peer, make in PEERS.items():
            for use, model, x in (("default", plain, self.images), ("best", best, last)):
                self._add(f"{peer}, {use}", make(model, attack, steps, x), x, labels)
        self._add("fastadv, default", ours(plain, attack, steps), self.images, labels)
        self._add("fastadv, fast=True", ours(plain, attack, steps, fast=True), self.images, labels)
        self._add("fastadv, best", ours(best, attack, steps), last, labels)
        self._add("fastadv, best, fast=True", ours(best, attack, steps, fast=True), last, labels)
        if case.compiled and DEVICE.type == "cpu":  # test_options has it on a GPU
            compiled = ours(best, attack, steps, fast=True, compile=True)
            self._add("fastadv, best, fast=True, compile=True", compiled, last, labels)
        with Operators(self.images) as self.once, torch.no_grad():
            plain(self.images)

    def _add(self, name: str, generate: Generate | None, x: Tensor, labels: Tensor) -> None:
        if generate is not None:
            self.calls[name] = lambda: generate(x, labels)

    def counts(self, name: str) -> list[str]:
        """Forwards, backwards, those with a weight's gradient, full-size tensors, and the peak of memory."""
        call, size = self.calls[name], self.once.names["convolution"]
        memory = f"{peak(call, DEVICE.type) / 1e6:.0f}"
        if "compile" in name or (DEVICE.type == "cuda" and "fast=True" in name):
            return ["", "", "", "", memory]
        with Operators(self.images) as counted:
            call()
        passes = (counted.names["convolution"], counted.names["convolution_backward"], counted.weight_gradients)
        full_size = counted.full_size.total()
        return [*(f"{count / size:.3g}" for count in passes), str(full_size), memory]


@pytest.fixture(autouse=True)
def quiet() -> None:
    """Other packages warn of this and that."""
    warnings.simplefilter("ignore")


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("network", [name for name in CASES if name in CHOSEN])
def test_generation(benchmark: Any, network: str, attack: str) -> None:
    steps = ATTACKS[attack]
    bench = Bench(CASES[network], attack, steps)
    made = {name: call() for name, call in bench.calls.items()}
    for name, adv in made.items():
        # The same attack: but for pixels whose gradient is nearly zero, and what follows from them.
        assert ((adv - made["fastadv, default"]).abs() > 1e-3).float().mean() < 0.05, name
    counts = {name: bench.counts(name) for name in bench.calls}
    interleaved = Interleaved(dict(bench.calls), quantum=0.05, clock=whole_seconds, run_up=1)
    benchmark.group = f"{network}, {attack}"
    benchmark.pedantic(interleaved.round, rounds=ROUNDS)
    timings, n = interleaved.timings(), len(bench.images)
    base = timings.get("torchattacks, default")
    for name, timing in timings.items():
        ratio = "" if base is None else f"{base.median / timing.median:.2f} x"
        row = [network, str(n), f"{attack}, {steps}", name, timing.text, f"{n / timing.median:.1f}", ratio]
        GENERATION.rows.append(row + counts[name])
