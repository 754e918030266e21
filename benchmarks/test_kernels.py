"""Every operator on a GPU, against a copy of as many bytes and against what else one would call.

Ceiling: torch's own copy of a large tensor, measured in the same rounds, in bytes read and written a second. A row's
GB/s counts what the work itself needs to read and write, whatever a variant moves. ``FASTADV_TEST_DEVICE=cpu``
rehearses it all at small sizes where there is no GPU; its figures mean nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from benchmarks.harness import TABLES, Interleaved, Table, Timing, device_seconds, host_seconds
from benchmarks.test_ops import ALPHA, EPS, compiled_first, compiled_step, compiled_step_
from fastadv import PixelSpace, ops
from tests.gpu.device import DEVICE, REHEARSAL

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not (REHEARSAL or torch.cuda.is_available()), reason="needs a CUDA device"),
]

UNIT, IMAGENET = PixelSpace.unit(), PixelSpace.imagenet()
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
# Over 256 MB in bfloat16, an ImageNet batch, and a CIFAR batch, which stays in the cache as it would behind a backward.
SHAPES = {
    "512 x 3 x 299 x 299": (512, 3, 299, 299),
    "128 x 3 x 224 x 224": (128, 3, 224, 224),
    "128 x 3 x 32 x 32": (128, 3, 32, 32),
}
LOGITS = {"131072 x 1000": (131_072, 1000), "256 x 1000": (256, 1000), "4096 x 21841": (4096, 21_841)}
if REHEARSAL:
    SHAPES, LOGITS = {"2 x 3 x 33 x 31": (2, 3, 33, 31)}, {"8 x 100": (8, 100)}
LARGEST = next(iter(SHAPES))
ROUNDS = 2 if REHEARSAL else 15
QUANTUM = 1e-4 if REHEARSAL else 2e-3

HEADER = ["work", "dtype", "variant", "us (quartiles)", "GB/s", "share of a copy", "fused is faster by"]
STEPS = Table("Steps on a GPU", HEADER)
OTHERS = Table("Noise, normalised steps and channels_last on a GPU", HEADER[:-1])
ROWS = Table("Rows of logits on a GPU", HEADER)
TARGETS = Table("Targets", ["what", "measured", "gate", "target", "reached"])
TABLES.extend([STEPS, OTHERS, ROWS, TARGETS])


@dataclass
class Work:
    """Variants of one piece of work, and the bytes that it needs to move."""

    variants: dict[str, Callable[[], object]]
    bytes: int


def random_images(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Random data: zeros can be faster than what a network sees."""
    return torch.rand(shape, device=DEVICE).to(dtype)


def copied(nbytes: int) -> Callable[[], object]:
    """A copy that reads and writes as many bytes together."""
    source = random_images((max(nbytes // 8, 1),), torch.float32)
    target = torch.empty_like(source)
    return lambda: target.copy_(source)


def measure(benchmark, work: Work) -> dict[str, Timing]:
    """The variants, and a copy of at least 256 MB, whose time is scaled to the work's bytes."""
    least = 2**16 if REHEARSAL else 2**28
    copy_bytes = max(work.bytes, least)
    variants = {**work.variants, "copy": copied(copy_bytes)}
    clock = host_seconds if REHEARSAL else device_seconds
    interleaved = Interleaved(variants, quantum=QUANTUM, clock=clock)
    benchmark.pedantic(interleaved.round, rounds=ROUNDS)
    timings = interleaved.timings()
    scale = work.bytes / copy_bytes
    copy = timings["copy"]
    return {**timings, "copy": Timing(scale * copy.median, scale * copy.low, scale * copy.high)}


def tabulate(table: Table, what: str, dtype: torch.dtype, work: Work, timings: dict[str, Timing]) -> None:
    for name, timing in timings.items():
        spread = f"{1e6 * timing.median:.4g} ({1e6 * timing.low:.4g}-{1e6 * timing.high:.4g})"
        row = [what, str(dtype).removeprefix("torch."), name, spread, f"{work.bytes / timing.median / 1e9:.0f}"]
        row.append(f"{timings['copy'].median / timing.median:.0%}")
        if len(table.header) == len(HEADER):
            row.append(f"{timing.median / timings['fused'].median:.2f}")
        table.rows.append(row)


def target(what: str, measured: float, gate: float, goal: float, form: str, *, at_most: bool = False) -> None:
    """A row of the targets: reported, never asserted."""
    better = (lambda a, b: a <= b) if at_most else (lambda a, b: a >= b)
    reached = "target" if better(measured, goal) else "gate" if better(measured, gate) else "no"
    TARGETS.rows.append([what, *(format(value, form) for value in (measured, gate, goal)), reached])


# --- steps -----------------------------------------------------------------------------------------------------------


def iterative(shape: tuple[int, ...], dtype: torch.dtype) -> Work:
    adv, clean, grad = (random_images(shape, dtype) for _ in range(3))
    grad -= 0.5
    delta = adv - clean
    eps = torch.full(shape[:1], 8.0, device=DEVICE)
    drawn = ops.sample_eps(shape[0], seed=1, device=DEVICE)

    def seven_operators() -> Tensor:  # those of torchattacks' PGD
        change = torch.clamp(adv + ALPHA * grad.sign() - clean, min=-EPS, max=EPS)
        return torch.clamp(clean + change, min=0, max=1)

    def five_operators() -> Tensor:  # on a perturbation that is kept
        delta.add_(grad.sign(), alpha=ALPHA).clamp_(-EPS, EPS)
        return (clean + delta).clamp_(0, 1)

    def bim() -> Tensor:  # those of torchattacks' BIM, which clips by comparisons and products
        low, high = torch.clamp(clean - EPS, min=0), clean + EPS
        there = adv + ALPHA * grad.sign()
        above = (there >= low).float() * there + (there < low).float() * low
        below = (above > clean + EPS).float() * high + (above <= clean + EPS).float() * above
        return torch.clamp(below, max=1)

    return Work(
        {
            "fused": lambda: ops.sign_step_(adv, clean, grad, 1.0, 8.0, UNIT),
            "fused, eps per example": lambda: ops.sign_step_(adv, clean, grad, 1.0, eps, UNIT),
            "fused, eps drawn": lambda: ops.sign_step_(adv, clean, grad, 1.0, drawn, UNIT),
            "torch.compile, in place": lambda: compiled_step_(adv, clean, grad),
            "torch.compile": lambda: compiled_step(adv, clean, grad),
            "eager, five operators": five_operators,
            "eager, seven operators (torchattacks' PGD)": seven_operators,
            "eager, torchattacks' BIM": bim,
        },
        4 * adv.nbytes,
    )


def first(shape: tuple[int, ...], dtype: torch.dtype) -> Work:
    clean, grad = random_images(shape, dtype), random_images(shape, dtype) - 0.5
    return Work(
        {
            "fused": lambda: ops.sign_step_(clean, clean, grad, 8.0, 8.0, UNIT),
            "torch.compile": lambda: compiled_first(clean, grad),
            "eager FGSM": lambda: torch.clamp(clean + EPS * grad.sign(), 0, 1),
        },
        3 * clean.nbytes,
    )


CASES = {"iterative": iterative, "single": first}


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("case", CASES)
def test_step(benchmark, case: str, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    work = CASES[case](shape, dtype)
    timings = measure(benchmark, work)
    name = next(name for name, size in SHAPES.items() if size == shape)
    tabulate(STEPS, f"{case} step, {name}", dtype, work, timings)
    if name != LARGEST:
        return
    seconds = {variant: timing.median for variant, timing in timings.items()}
    gate, goal = (0.85, 0.93) if dtype == torch.float32 else (0.80, 0.90)
    target(f"{case} step, {dtype}: share of a copy", seconds["copy"] / seconds["fused"], gate, goal, ".0%")
    compiled = min(value for variant, value in seconds.items() if "compile" in variant) / seconds["fused"]
    target(f"{case} step, {dtype}: torch.compile takes", compiled, 1.0, 1.1, ".2f")
    if case == "single":
        target(f"{dtype}: eager FGSM takes", seconds["eager FGSM"] / seconds["fused"], 2.6, 2.9, ".2f")
        return
    pgd, bim = (seconds[f"eager, {rest}"] for rest in ("seven operators (torchattacks' PGD)", "torchattacks' BIM"))
    target(f"{dtype}: eager PGD takes", pgd / seconds["fused"], 3.6, 4.1, ".2f")
    target(f"{dtype}: torchattacks' BIM takes", bim / seconds["fused"], 9.0, 12.0, ".2f")
    drawn = seconds["fused, eps drawn"] / seconds["fused"] - 1
    target(f"{dtype}: an eps drawn per example costs", drawn, 0.05, 0.01, ".1%", at_most=True)


# --- the other operators ---------------------------------------------------------------------------------------------

NOISE = {"noise, sign": "sign", "noise, truncated normal": "truncated_normal", "noise, uniform": "uniform"}
NORMS = {"normalised step, L2": "l2", "normalised step, Linf": "linf"}


def other(case: str, dtype: torch.dtype) -> Work:
    """The operator alone; its bytes are those that each of its passes needs."""
    adv, clean, grad = (random_images(SHAPES[LARGEST], dtype) for _ in range(3))
    grad -= 0.5
    if case in NOISE:
        return Work({case: lambda: ops.noise_step_(adv, clean, 8.0, NOISE[case], 3, 0, UNIT)}, 2 * adv.nbytes)
    if case in NORMS:  # one pass for the norm, for L2 another for the distance, and the step
        passes = {"l2": 1 + 3 + 4, "linf": 1 + 4}[NORMS[case]]
        return Work(
            {case: lambda: ops.normalized_step_(adv, clean, grad, 1.0, 8.0, NORMS[case], UNIT)}, passes * adv.nbytes
        )
    if case == "eps drawn for 1,000,000 examples":
        eps = torch.empty(1_000_000, device=DEVICE)
        return Work({case: lambda: ops.truncated_normal_(eps, seed=3)}, eps.nbytes)
    adv, clean, grad = (tensor.contiguous(memory_format=torch.channels_last) for tensor in (adv, clean, grad))
    return Work({case: lambda: ops.sign_step_(adv, clean, grad, 1.0, 8.0, IMAGENET)}, 4 * adv.nbytes)


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
@pytest.mark.parametrize(
    "case", [*NOISE, *NORMS, "sign step, channels_last, constants per channel", "eps drawn for 1,000,000 examples"]
)
def test_other(benchmark, case: str, dtype: torch.dtype) -> None:
    work = other(case, dtype)
    tabulate(OTHERS, case, dtype, work, measure(benchmark, work))


# --- rows of logits --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
@pytest.mark.parametrize("shape", LOGITS.values(), ids=LOGITS)
def test_target_grad(benchmark, shape: tuple[int, int], dtype: torch.dtype) -> None:
    logits = (4 * torch.randn(shape, device=DEVICE)).to(dtype)

    def eager() -> Tensor:  # the least likely class, then the gradient of its cross-entropy by autograd
        leaf = logits.detach().requires_grad_()
        loss = torch.nn.functional.cross_entropy(leaf, leaf.argmin(dim=1), reduction="sum")
        return torch.autograd.grad(loss, leaf)[0]

    work = Work({"fused": lambda: ops.target_grad(logits, "least_likely"), "eager, autograd": eager}, 2 * logits.nbytes)
    timings = measure(benchmark, work)
    name = next(name for name, size in LOGITS.items() if size == shape)
    tabulate(ROWS, f"target_grad, {name}", dtype, work, timings)
    if shape[1] == 1000 and shape[0] > 1000:
        share = timings["copy"].median / timings["fused"].median
        target(f"target_grad at 1,000 classes, {dtype}: share of a copy", share, 0.8, 0.8, ".0%")


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
@pytest.mark.parametrize("shape", LOGITS.values(), ids=LOGITS)
def test_mixed_cross_entropy(benchmark, shape: tuple[int, int], dtype: torch.dtype) -> None:
    logits = (4 * torch.randn(shape, device=DEVICE)).to(dtype)
    labels = torch.randint(0, shape[1], shape[:1], device=DEVICE)
    k, weights = shape[0] // 2, torch.ones(shape[0], device=DEVICE)
    weights[:k] = 0.3

    def fused() -> Tensor:
        leaf = logits.detach().requires_grad_()
        return torch.autograd.grad(ops.mixed_cross_entropy(leaf, labels, k, 0.3), leaf)[0]

    def eager() -> Tensor:
        leaf = logits.detach().requires_grad_()
        losses = torch.nn.functional.cross_entropy(leaf.float(), labels, reduction="none")
        return torch.autograd.grad((weights * losses).sum() / weights.sum(), leaf)[0]

    # Logits read; their float32 derivative written, and read again for the gradient in the logits' dtype.
    work = Work({"fused": fused, "eager, autograd": eager}, 2 * logits.nbytes + 2 * 4 * logits.numel())
    name = next(name for name, size in LOGITS.items() if size == shape)
    tabulate(ROWS, f"mixed_cross_entropy and its gradient, {name}", dtype, work, measure(benchmark, work))


@pytest.mark.skipif(REHEARSAL, reason="a rehearsal on the CPU launches nothing")
def test_launches() -> None:
    """Kernels of a CIFAR-size step and of target_grad, counted by the profiler."""
    adv, clean, grad = (random_images((128, 3, 32, 32), torch.float32) for _ in range(3))
    logits = torch.randn(256, 1000, device=DEVICE)
    works = {
        "kernels of a CIFAR-size step": lambda: ops.sign_step_(adv, clean, grad, 1.0, 8.0, UNIT),
        "kernels of target_grad": lambda: ops.target_grad(logits, "least_likely"),
    }
    for what, work in works.items():
        work()
        torch.cuda.synchronize()
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
            work()
            torch.cuda.synchronize()
        kernels = [event for event in profile.events() if event.device_type == torch.autograd.DeviceType.CUDA]
        target(what, len(kernels), 1, 1, "d", at_most=True)
