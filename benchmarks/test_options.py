"""The effect of each option on an attack on a GPU, in float32 and in bfloat16; test_iterations.py covers training.

Times are a caller's, the host's launches included, which CUDA graphs save. ``FASTADV_TEST_DEVICE=cpu`` rehearses it all
at small sizes where there is no GPU; its figures mean nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchmarks.device import DEVICE, REHEARSAL, SECONDS
from benchmarks.first_calls import first_calls
from benchmarks.harness import TABLES, Interleaved, Table, whole_seconds
from benchmarks.launches import launches
from benchmarks.peers import Generate, torchattacks
from benchmarks.test_iterations import CHANNELS_LAST, COMPILE, Network, Option, measure_iterations
from benchmarks.trainers import CLASSES
from fastadv import attacks, models

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not (REHEARSAL or torch.cuda.is_available()), reason="needs a CUDA device"),
]

LAUNCHES = Table(
    "Launches of an attack's iteration",
    ["network", "N", "attack, steps", "variant", "kernels", "launches by the host", "waits"],
    notes=[
        "Each is that of a call over the number of its steps, in float32: what comes once, such as folding or copies "
        "to a graph's own tensors, is shared out. A graph is one launch of all its kernels. Waits: of the host for "
        "the device."
    ],
)
OPTIONS = Table(
    "Options of an attack",
    [
        *("network", "N", "attack, steps", "precision", "variant", "ms (quartiles)", "images/s"),
        *("torchattacks' default takes (quartiles)", "fastadv's default takes (quartiles)", "rounds", "peak MB"),
    ],
    notes=[
        "Takes: so many times as long, in the same precision and round. channels_last: of weights and images, with "
        "parameters frozen by the caller; for torchattacks that is its best use, with step l.l.'s class given to it. "
        "Precision: float32 is PyTorch's "
        "default, in which a GPU's convolutions may use TF32; bfloat16 is autocast around the whole attack. Peak: of "
        "the first three calls, in which graphs are recorded, above what was allocated before."
    ],
)
TABLES += [LAUNCHES, OPTIONS]


@dataclass(frozen=True)
class Case:
    """A network, the number of images and their height. Inception v3 takes as many as in the paper."""

    network: str
    n: int
    side: int

    def __str__(self) -> str:
        return self.network

    def make(self, layout: torch.memory_format = torch.contiguous_format) -> nn.Module:
        """The network in evaluation mode, with the same weights each time."""
        torch.manual_seed(0)
        model = models.create(self.network, num_classes=CLASSES).eval().to(DEVICE)
        return model.to(memory_format=layout)  # type: ignore[call-overload,no-any-return]


CASES = [Case("small_cnn", 128, 32), Case("torchvision/resnet50", 64, 224), Case("inception_v3", 32, 299)]
if REHEARSAL:
    CASES = [Case("small_cnn", 2, 8)]
# Inception v3 takes minutes to compile.
COMPILED = [case for case in CASES if case.network != "inception_v3"]
PRECISIONS = ("float32", "bfloat16")
STEPS = {"step_ll": 1, "fgsm": 1, "iter_basic": 10}


def timed(benchmark: Any, calls: dict[str, Callable[[], object]]) -> Interleaved:
    interleaved = Interleaved(calls, quantum=1e-3 if REHEARSAL else 0.05, clock=whole_seconds, run_up=0)
    benchmark.pedantic(interleaved.run, args=(SECONDS,), rounds=1)
    return interleaved


# --- an attack -------------------------------------------------------------------------------------------------------


def ours(model: nn.Module, attack: str, **options: Any) -> Generate:
    steps = {"steps": STEPS[attack], "alpha": 1} if STEPS[attack] > 1 else {}
    return attacks.create(attack, model, eps=8, validate="never", **steps, **options)


class Variants:
    """Named calls of one attack on one network, all with the same images."""

    def __init__(self, case: Case, precision: str = "float32") -> None:
        self.images = torch.rand(case.n, 3, case.side, case.side, device=DEVICE)  # [N, C, H, W]
        self.last = self.images.contiguous(memory_format=torch.channels_last)
        self.plain, self.best = case.make(), case.make(torch.channels_last).requires_grad_(False)
        self.calls: dict[str, Callable[[], Tensor]] = {}
        self._half = precision == "bfloat16"

    def add(self, name: str, make: Callable[[nn.Module], Generate | None], *, best: bool = False) -> None:
        """Add a variant, unless its package is not installed."""
        generate = make(self.best if best else self.plain)
        images = self.last if best else self.images
        labels = torch.zeros(len(images), dtype=torch.int64, device=DEVICE)  # [N], not used by step l.l.

        def call() -> Tensor:
            with torch.autocast(DEVICE.type, torch.bfloat16, enabled=self._half):
                return generate(images, labels)  # type: ignore[misc]

        if generate is not None:
            self.calls[name] = call

    def peers(self, attack: str) -> None:
        """torchattacks in its default and in its best use."""
        of_images = {"attack": attack, "steps": STEPS[attack], "images": self.images}
        for name, best in (("torchattacks, default", False), ("torchattacks, channels_last", True)):
            self.add(name, partial(torchattacks, best=best, **of_images), best=best)


@pytest.mark.skipif(REHEARSAL, reason="a rehearsal on the CPU launches nothing")
@pytest.mark.parametrize(("attack", "steps"), STEPS.items(), ids=STEPS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_launches(case: Case, attack: str, steps: int) -> None:
    variants = Variants(case)
    variants.peers(attack)
    for name, options in ATTACK_OPTIONS.items():
        variants.add(name, partial(ours, attack=attack, **options))
    for name, call in variants.calls.items():
        first_calls(LAUNCHES, f"{case}, {name}", call)
        found = launches(call)
        counts = [f"{count / steps:.4g}" for count in (len(found.kernels), found.host, found.waits)]
        LAUNCHES.rows.append([case.network, str(case.n), f"{attack}, {steps}", name, *counts])


ATTACK_OPTIONS: dict[str, dict[str, bool]] = {
    "fastadv, default": {},
    "fastadv, fold_bn": {"fold_bn": True},
    "fastadv, capture": {"capture": True},
    "fastadv, fast": {"fast": True},
}


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_attack(benchmark: Any, case: Case, precision: str) -> None:
    measure_options(benchmark, case, "step_ll", precision)


def measure_options(benchmark: Any, case: Case, attack: str, precision: str) -> None:
    variants = Variants(case, precision)
    variants.peers(attack)
    for name, options in ATTACK_OPTIONS.items():
        variants.add(name, partial(ours, attack=attack, **options))
    variants.add("fastadv, channels_last", partial(ours, attack=attack), best=True)
    variants.add("fastadv, channels_last, fast", partial(ours, attack=attack, fast=True), best=True)
    measure_attack(benchmark, case, attack, precision, variants)


def measure_attack(benchmark: Any, case: Case, attack: str, precision: str, variants: Variants) -> None:
    what = f"{case}, {attack}, {precision}"
    peaks = {name: first_calls(OPTIONS, f"{what}, {name}", call) for name, call in variants.calls.items()}
    interleaved = timed(benchmark, variants.calls)
    bases = ("torchattacks, default", "fastadv, default")
    for name, timing in interleaved.timings().items():
        takes = [f"{interleaved.ratio(base, name).text} x" if base in variants.calls else "" for base in bases]
        row = [case.network, str(case.n), f"{attack}, {STEPS[attack]}", precision, name, timing.text]
        speed = [f"{case.n / timing.median:,.0f}", *takes, str(interleaved.rounds), peaks[name]]
        OPTIONS.rows.append([*row, *speed])


# --- further attacks, after what training by step l.l. needs ----------------------------------------------------------


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("attack", [attack for attack in STEPS if attack != "step_ll"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_further_attack(benchmark: Any, case: Case, attack: str, precision: str) -> None:
    measure_options(benchmark, case, attack, precision)


# --- compiled, last, with the remaining time ---------------------------------------------------

too_long = pytest.mark.skipif(REHEARSAL, reason="a rehearsal compiles nothing: it would take minutes")


@too_long
@pytest.mark.parametrize("case", COMPILED, ids=str)
@pytest.mark.parametrize("precision", ["bfloat16", "float32"])
def test_compiled(benchmark: Any, case: Case, precision: str) -> None:
    variants = Variants(case, precision)
    variants.peers("step_ll")
    variants.add("fastadv, default", partial(ours, attack="step_ll"))
    for options in ({"fast": True}, {"fast": True, "compile": True}):
        name = f"fastadv, channels_last, {', '.join(options)}"
        variants.add(name, partial(ours, attack="step_ll", **options), best=True)
    measure_attack(benchmark, case, "step_ll", precision, variants)


@too_long
@pytest.mark.parametrize("case", COMPILED, ids=str)
@pytest.mark.parametrize("precision", ["bfloat16", "float32"])
def test_compiled_iteration(benchmark: Any, case: Case, precision: str) -> None:
    compiled = Option(
        f"{precision}, fast, compile", precision=precision, config=COMPILE | {"fast": True}, attack=COMPILE
    )
    fast = Option(f"{precision}, fast", precision=precision, config={"fast": True})
    clean = Option(f"{precision}, channels_last, compile", precision=precision, config=CHANNELS_LAST | COMPILE)
    measure_iterations(benchmark, Network(case.network, case.n, case.side), [fast, compiled], [clean])
