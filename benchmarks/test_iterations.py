"""Whole iterations of Algorithm 1 with step l.l. on half of each minibatch, by option, on a GPU.

They are compared with the fastest clean iteration of the same precision. Times are a caller's, including the host's
launches. ``FASTADV_TEST_DEVICE=cpu`` rehearses everything at small sizes; the figures mean nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
import torch

from benchmarks.device import DEVICE, REHEARSAL, SECONDS
from benchmarks.first_calls import first_calls
from benchmarks.harness import TABLES, Interleaved, Table, whole_seconds
from benchmarks.launches import launches
from benchmarks.trainers import CLASSES, random_trainer, step
from fastadv import models
from fastadv.train import AttackConfig, TrainConfig

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not (REHEARSAL or torch.cuda.is_available()), reason="needs a CUDA device"),
]

ITERATIONS = Table(
    "Whole iterations of training",
    [
        *("network", "m", "k", "options", "ms (quartiles)", "images/s"),
        *("clean iterations (quartiles)", "floor", "rounds", "peak MB"),
    ],
    notes=[
        "Clean iterations: the time divided by that of the fastest clean one of the same precision in the same round. "
        "Floor: by pass count, 1 + 2 k / (3 m), with one unit each for a forward pass and the two halves of a backward "
        "pass. Folding BatchNorm makes the attack's passes cheaper, so that a time can be lower. float32 is PyTorch's "
        "default, in which a GPU's convolutions may use TF32; bfloat16 is autocast. Peak: memory of the first three "
        "iterations, in addition to what was allocated before."
    ],
)
LAUNCHES = Table(
    "Launches of an iteration of training",
    ["network", "m", "k", "options", "kernels", "launches by the host", "waits"],
    notes=["Including the loader. A graph is one launch of all its kernels. Waits: of the host for the device."],
)
TABLES += [LAUNCHES, ITERATIONS]


@dataclass(frozen=True)
class Option:
    """A row of the table: the options of an iteration.

    Args:
        name: name in the table.
        precision: precision of the passes.
        config: further fields of TrainConfig.
        attack: options of the attack.
    """

    name: str
    precision: str = "float32"
    config: Mapping[str, Any] = field(default_factory=dict)
    attack: Mapping[str, Any] = field(default_factory=dict)


CHANNELS_LAST, COMPILE = {"channels_last": True}, {"compile": True}
OPTIONS = [
    Option("plain"),
    Option("generation captured", attack={"capture": True}),
    Option("iteration captured", config={"capture": True}),
    Option("fast", config={"fast": True}),
    Option("fast, iteration captured", config={"fast": True, "capture": True}),
    Option("bfloat16, channels_last", precision="bfloat16", config=CHANNELS_LAST),
    Option("bfloat16, fast", precision="bfloat16", config={"fast": True}),
    Option("bfloat16, fast, iteration captured", precision="bfloat16", config={"fast": True, "capture": True}),
]
CLEAN = [
    Option("plain"),
    Option("channels_last", config=CHANNELS_LAST),
    Option("bfloat16, channels_last", precision="bfloat16", config=CHANNELS_LAST),
]


@dataclass(frozen=True)
class Network:
    """A network, its minibatch, and the side of its images."""

    name: str
    m: int
    side: int

    def __str__(self) -> str:
        return f"{self.name}, {self.m}"


# In the order of their worth. 32 are the paper's.
NETWORKS = [
    Network("torchvision/resnet50", 64, 224),
    Network("inception_v3", 32, 299),
    Network("torchvision/resnet50", 256, 224),
    Network("inception_v3", 128, 299),
]
if REHEARSAL:
    NETWORKS = [Network("small_cnn", 2, 8)]


def iteration(network: Network, k: int, option: Option) -> Callable[[], object]:
    """One of training, on fresh copies of the same images."""
    attack = AttackConfig(name="step_ll", k=k, options=dict(option.attack))
    config = TrainConfig(m=network.m, attack=attack, precision=option.precision, **option.config)  # type: ignore[arg-type]
    model = models.create(network.name, num_classes=CLASSES)
    trainer, _ = random_trainer(model, config, size=network.side, device=DEVICE)
    return partial(step, trainer)


def measure_iterations(benchmark: Any, network: Network, options: Sequence[Option], clean: Sequence[Option]) -> None:
    """Rows of the table: the clean iterations, and those with half of the minibatch adversarial."""
    rows = [(k, option) for k, some in ((0, clean), (network.m // 2, options)) for option in some]
    calls = {f"{k}, {option.name}": iteration(network, k, option) for k, option in rows}
    peaks = {name: first_calls(ITERATIONS, f"{network}, k = {name}", call) for name, call in calls.items()}
    interleaved = Interleaved(calls, quantum=0.0, clock=whole_seconds, run_up=0)
    benchmark.pedantic(interleaved.run, args=(SECONDS,), rounds=1)
    timings = interleaved.timings()
    for k, option in rows:
        name = f"{k}, {option.name}"
        floors = [f"0, {one.name}" for one in clean if one.precision == option.precision]
        fastest = min(floors, key=lambda call: timings[call].median)
        timing, cost = timings[name], interleaved.ratio(name, fastest)
        what = [network.name, str(network.m), str(k), option.name, timing.text, f"{network.m / timing.median:,.0f}"]
        floor = f"{1 + 2 * k / (3 * network.m):.2f}"
        ITERATIONS.rows.append([*what, cost.text, floor, str(interleaved.rounds), peaks[name]])


@pytest.mark.parametrize("network", NETWORKS, ids=str)
def test_iterations(benchmark: Any, network: Network) -> None:
    measure_iterations(benchmark, network, OPTIONS, CLEAN)


@pytest.mark.skipif(REHEARSAL, reason="a rehearsal on the CPU launches nothing")
@pytest.mark.parametrize("network", NETWORKS, ids=str)
def test_launches(network: Network) -> None:
    k = network.m // 2
    for option in OPTIONS:
        call = iteration(network, k, option)
        first_calls(LAUNCHES, f"{network}, {option.name}", call)
        found = launches(call)
        counts = (len(found.kernels), found.host, found.waits)
        LAUNCHES.rows.append([network.name, str(network.m), str(k), option.name, *map(str, counts)])
