"""What each option is worth on a GPU: in an attack, in an iteration of training, in float32 and in bfloat16.

Times are a caller's, the host's launches included, which CUDA graphs save. ``FASTADV_TEST_DEVICE=cpu`` rehearses it all
at small sizes where there is no GPU; its figures mean nothing.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchmarks.device import DEVICE, REHEARSAL, SECONDS
from benchmarks.harness import TABLES, Interleaved, Table, whole_seconds
from benchmarks.launches import launches
from benchmarks.memory import peak
from benchmarks.peers import Generate, torchattacks
from benchmarks.trainers import CLASSES, random_trainer, step
from fastadv import attacks, models
from fastadv.train import AttackConfig, TrainConfig

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
ITERATIONS = Table(
    "Options of training: an iteration of Algorithm 1 by step l.l.",
    [
        *("network", "m", "k", "precision", "options", "ms (quartiles)", "images/s"),
        *("clean iterations (quartiles)", "floor", "rounds"),
    ],
    notes=[
        "Clean iterations: the time over that of the fastest clean one in the same precision and round. "
        "Compile: of generation and of the training pass."
    ],
)
TRAINING_LAUNCHES = Table(
    "Launches of an iteration of training: Algorithm 1 by step l.l.",
    ["network", "m", "k", "options", "kernels", "launches by the host", "waits"],
    notes=[
        "In float32, with the loader's. A graph is one launch of all its kernels. Waits: of the host for the device."
    ],
)
TABLES += [LAUNCHES, OPTIONS, TRAINING_LAUNCHES, ITERATIONS]


@dataclass(frozen=True)
class Case:
    """A network, how many images it takes, and their side. Inception v3 takes as many as in the paper."""

    network: str
    n: int
    side: int

    def __str__(self) -> str:
        return self.network

    def make(self, layout: torch.memory_format = torch.contiguous_format) -> nn.Module:
        """The same weights each time, in evaluation mode."""
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
WITHOUT = re.compile("(runs|goes on) without")


def first_calls(table: Table, what: str, call: Callable[[], object]) -> str:
    """The first three, in which libraries choose kernels and graphs are recorded; their peak of memory in MB.

    A warning that something runs without an option becomes a note of the table.
    """
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        peak_bytes = peak(lambda: [call() for _ in range(3)], DEVICE.type)
    notes = [f"{what}: {warning.message}." for warning in said if WITHOUT.search(str(warning.message))]
    table.notes += [note for note in dict.fromkeys(notes) if note not in table.notes]
    return f"{peak_bytes / 1e6:.0f}"


def timed(benchmark: Any, calls: dict[str, Callable[[], object]]) -> Interleaved:
    interleaved = Interleaved(calls, quantum=1e-3 if REHEARSAL else 0.05, clock=whole_seconds, run_up=0)
    benchmark.pedantic(interleaved.run, args=(SECONDS,), rounds=1)
    return interleaved


# --- an attack -------------------------------------------------------------------------------------------------------


def ours(model: nn.Module, attack: str, **options: Any) -> Generate:
    steps = {"steps": STEPS[attack], "alpha": 1} if STEPS[attack] > 1 else {}
    return attacks.create(attack, model, eps=8, validate="never", **steps, **options)


class Variants:
    """Calls of one attack on one network by name, all for the same images."""

    def __init__(self, case: Case, precision: str = "float32") -> None:
        self.images = torch.rand(case.n, 3, case.side, case.side, device=DEVICE)  # [N, C, H, W]
        self.last = self.images.contiguous(memory_format=torch.channels_last)
        self.plain, self.best = case.make(), case.make(torch.channels_last).requires_grad_(False)
        self.calls: dict[str, Callable[[], Tensor]] = {}
        self._half = precision == "bfloat16"

    def add(self, name: str, make: Callable[[nn.Module], Generate | None], *, best: bool = False) -> None:
        """A variant; one of a package that is not installed is left out."""
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


# --- an iteration of training ----------------------------------------------------------------------------------------


def trainer(case: Case, k: int, precision: str, **options: Any) -> Callable[[], object]:
    compiled = {"compile": True} if options.get("compile") else {}
    attack = AttackConfig(name="step_ll", k=k, options=compiled)
    config = TrainConfig(m=case.n, attack=attack, precision=precision, **options)  # type: ignore[arg-type]
    made, _ = random_trainer(models.create(case.network, num_classes=CLASSES), config, size=case.side, device=DEVICE)
    return partial(step, made)


TRAINING_OPTIONS: dict[str, dict[str, bool]] = {
    "none": {},
    "channels_last": {"channels_last": True},
    "fast": {"fast": True},
    "fast, capture": {"fast": True, "capture": True},
}


@pytest.mark.skipif(REHEARSAL, reason="a rehearsal on the CPU launches nothing")
@pytest.mark.parametrize("case", CASES, ids=str)
def test_launches_of_training(case: Case) -> None:
    k = case.n // 2
    for name, options in TRAINING_OPTIONS.items():
        call = trainer(case, k, "float32", **options)
        first_calls(TRAINING_LAUNCHES, f"{case}, {name}", call)
        found = launches(call)
        counts = (len(found.kernels), found.host, found.waits)
        TRAINING_LAUNCHES.rows.append([case.network, str(case.n), str(k), name, *map(str, counts)])


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_iteration(benchmark: Any, case: Case, precision: str) -> None:
    measure_iteration(benchmark, case, precision, TRAINING_OPTIONS)


def measure_iteration(benchmark: Any, case: Case, precision: str, options: dict[str, dict[str, bool]]) -> None:
    rows = [(k, name) for name in options for k in (0, case.n // 2)]
    calls = {f"{k}, {name}": trainer(case, k, precision, **options[name]) for k, name in rows}
    for name, call in calls.items():
        first_calls(ITERATIONS, f"{case}, {precision}, k = {name}", call)
    interleaved = timed(benchmark, calls)
    timings = interleaved.timings()
    clean = min((f"0, {name}" for name in options), key=lambda call: timings[call].median)
    for k, name in rows:
        timing, cost = timings[f"{k}, {name}"], interleaved.ratio(f"{k}, {name}", clean)
        what = [case.network, str(case.n), str(k), precision, name, timing.text, f"{case.n / timing.median:,.0f}"]
        ITERATIONS.rows.append([*what, cost.text, f"{1 + 2 * k / (3 * case.n):.2f}", str(interleaved.rounds)])


# --- further attacks, after what training by step l.l. needs ----------------------------------------------------------


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("attack", [attack for attack in STEPS if attack != "step_ll"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_further_attack(benchmark: Any, case: Case, attack: str, precision: str) -> None:
    measure_options(benchmark, case, attack, precision)


# --- compiled, which comes last: what is left of the time is for it ---------------------------------------------------

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
    fast: dict[str, dict[str, bool]] = {"fast": {"fast": True}, "fast, compile": {"fast": True, "compile": True}}
    measure_iteration(benchmark, case, precision, fast)
