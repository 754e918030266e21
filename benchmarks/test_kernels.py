"""Every operator on a GPU, compared with a copy of as many bytes and with alternatives.

Ceilings: torch's own ``copy_`` of a large tensor, and its ``x + 0``, a kernel that computes, measured in the same
rounds, in bytes read and written a second. A row's GB/s counts what the work itself needs to read and write, whatever a
variant moves. FASTADV_BENCH_RIVALS=eager leaves out what torch.compile makes, and =compiled measures that alone, on the
largest sizes. ``FASTADV_TEST_DEVICE=cpu`` rehearses it all at small sizes; its figures mean nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from benchmarks.apgd_operators import dlr_as_torchattacks
from benchmarks.harness import TABLES, Interleaved, Ratio, Table, device_seconds, host_seconds
from benchmarks.launches import launches
from benchmarks.test_ops import ALPHA, EPS, compiled_first, compiled_step, compiled_step_
from fastadv import PixelSpace, ops, reference
from tests.gpu.device import DEVICE, REHEARSAL

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not (REHEARSAL or torch.cuda.is_available()), reason="needs a CUDA device"),
]

UNIT, IMAGENET = PixelSpace.unit(), PixelSpace.imagenet()
DTYPES = [torch.float32, torch.bfloat16]
# Over 256 MB in bfloat16, an ImageNet batch, and a CIFAR batch, which stays in the cache as after a backward pass.
SHAPES = [(512, 3, 299, 299), (128, 3, 224, 224), (128, 3, 32, 32)]
LOGITS = [(131_072, 1000), (256, 1000), (4096, 21_841)]
if REHEARSAL:
    SHAPES, LOGITS = [(2, 3, 33, 31)], [(8, 100)]
RIVALS = os.environ.get("FASTADV_BENCH_RIVALS", "all")
if RIVALS == "compiled":
    SHAPES, LOGITS = SHAPES[:1], LOGITS[:1]
LARGEST = SHAPES[0]
HALF = (LARGEST[0] // 2, *LARGEST[1:])
MIDDLE = SHAPES[len(SHAPES) // 2]  # where the temporaries of fastadv.reference fit
ROUNDS = 2 if REHEARSAL else 15
QUANTUM = 1e-4 if REHEARSAL else 2e-3

HEADER = [
    *("work", "dtype", "variant", "us (quartiles)", "GB/s"),
    *("share of a copy (quartiles)", "fused is faster by (quartiles)"),
]
STEPS = Table("Steps on a GPU", HEADER)
OTHERS = Table("Noise, normalised steps, channels_last and pixels on a GPU", HEADER)
ROWS = Table("Rows of logits on a GPU", HEADER)
TARGETS = Table("Targets", ["what", "measured (quartiles)", "gate", "target", "reached"])
TABLES.extend([STEPS, OTHERS, ROWS, TARGETS])


@dataclass
class Work:
    """Variants of the same work, and the bytes that it must move."""

    variants: dict[str, Callable[[], object]]
    bytes: int


def random_images(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Random data, because zeros can be faster than real images."""
    return torch.rand(shape, device=DEVICE).to(dtype)


def ceilings(nbytes: int) -> dict[str, Callable[[], object]]:
    """Upper bounds that read and write as many bytes: a copy, and a minimal kernel."""
    source = random_images((max(nbytes // 8, 1),), torch.float32)
    target = torch.empty_like(source)
    return {"copy": lambda: target.copy_(source), "x + 0": lambda: torch.add(source, 0, out=target)}


def words(size: tuple[int, ...] | torch.dtype) -> str:
    """A shape or a dtype as in the tables."""
    return str(size).removeprefix("torch.") if isinstance(size, torch.dtype) else " x ".join(map(str, size))


@pytest.fixture(autouse=True)
def compiled_separately() -> None:
    """Compile each shape and dtype separately, because code for any shape may be slower."""
    torch._dynamo.reset()


def without_failures(variants: dict[str, Callable[[], object]], table: Table, what: str) -> dict[str, Callable]:
    """The variants except those that torch.compile fails on, with a note in the table."""
    working = dict(variants)
    for name in [name for name in variants if "torch.compile" in name]:
        try:
            variants[name]()
        except Exception as error:  # a compiler may raise anything
            reason = (str(error).splitlines() or ["no message"])[0]
            table.notes.append(f"{what}: without {name}, which failed ({type(error).__name__}: {reason}).")
            del working[name]
    return working


def chosen(variants: dict[str, Callable[[], object]]) -> dict[str, Callable[[], object]]:
    """The fused variants and the selected alternatives."""
    compiled = {name: call for name, call in variants.items() if "torch.compile" in name}
    if RIVALS == "eager":
        return {name: call for name, call in variants.items() if name not in compiled}
    return variants if RIVALS == "all" else {"fused": variants["fused"], **compiled}


def measure(benchmark, table: Table, what: str, dtype: torch.dtype, work: Work) -> Interleaved:
    """Measure the variants, and upper bounds at 256 MB or more with times scaled to the work's bytes."""
    least = 2**16 if REHEARSAL else 2**28
    nbytes = max(work.bytes, least)
    limits = ceilings(nbytes)
    variants = without_failures(chosen(work.variants), table, f"{what}, {words(dtype)}") | limits
    clock = host_seconds if REHEARSAL else device_seconds
    interleaved = Interleaved(variants, quantum=QUANTUM, clock=clock)
    benchmark.pedantic(interleaved.round, rounds=ROUNDS)
    for name in limits:
        interleaved.seconds[name] = [work.bytes / nbytes * seconds for seconds in interleaved.seconds[name]]
    for name, timing in interleaved.timings().items():
        spread = f"{1e6 * timing.median:.4g} ({1e6 * timing.low:.4g}-{1e6 * timing.high:.4g})"
        row = [what, words(dtype), name, spread, f"{work.bytes / timing.median / 1e9:.0f}"]
        table.rows.append([*row, interleaved.ratio("copy", name).percent, interleaved.ratio(name, "fused").text])
    return interleaved


def target(what: str, measured: Ratio, gate: float, goal: float, form: str, *, at_most: bool = False) -> None:
    """Add a row to the targets, which are reported and never asserted."""
    better = (lambda a, b: a <= b) if at_most else (lambda a, b: a >= b)
    reached = "target" if better(measured.median, goal) else "gate" if better(measured.median, gate) else "no"
    median, low, high, *bounds = (
        format(value, form) for value in (measured.median, measured.low, measured.high, gate, goal)
    )
    TARGETS.rows.append([what, f"{median} ({low}-{high})", *bounds, reached])


# --- steps -----------------------------------------------------------------------------------------------------------


def iterative(shape: tuple[int, ...], dtype: torch.dtype) -> Work:
    adv, clean, grad = (random_images(shape, dtype) for _ in range(3))
    grad -= 0.5
    delta = adv - clean
    eps = torch.full(shape[:1], 8.0, device=DEVICE)
    drawn = torch.empty(shape[0], device=DEVICE)

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
            "fused, eps drawn": lambda: ops.sign_step_(
                adv, clean, grad, 1.0, ops.truncated_normal_(drawn, seed=1), UNIT
            ),
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
SIZES = [(shape, dtype) for shape in SHAPES for dtype in DTYPES]
if RIVALS != "compiled":
    SIZES += [(LARGEST, torch.float16), (HALF, torch.float64)]
without_rival = pytest.mark.skipif(RIVALS == "compiled", reason="is compared with nothing that is compiled")


@pytest.mark.parametrize(("shape", "dtype"), SIZES, ids=words)
@pytest.mark.parametrize("case", CASES)
def test_step(benchmark, case: str, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    measured = measure(benchmark, STEPS, f"{case} step, {words(shape)}", dtype, CASES[case](shape, dtype))
    if shape != LARGEST or dtype not in DTYPES:
        return
    gate, goal = (0.85, 0.93) if dtype == torch.float32 else (0.80, 0.90)
    target(f"{case} step, {dtype}: share of a copy", measured.ratio("copy", "fused"), gate, goal, ".0%")
    compiled = [measured.ratio(name, "fused") for name in measured.variants if "torch.compile" in name]
    if compiled:
        best = min(compiled, key=lambda ratio: ratio.median)
        target(f"{case} step, {dtype}: torch.compile takes", best, 1.0, 1.1, ".2f")
    if RIVALS == "compiled":
        return
    if case == "single":
        target(f"{dtype}: eager FGSM takes", measured.ratio("eager FGSM", "fused"), 2.6, 2.9, ".2f")
        return
    pgd, bim, drawn = (
        measured.ratio(name, "fused")
        for name in ("eager, seven operators (torchattacks' PGD)", "eager, torchattacks' BIM", "fused, eps drawn")
    )
    target(f"{dtype}: eager PGD takes", pgd, 3.6, 4.1, ".2f")
    target(f"{dtype}: torchattacks' BIM takes", bim, 9.0, 12.0, ".2f")
    target(f"{dtype}: with an eps drawn per example it takes", drawn, 1.05, 1.01, ".3f", at_most=True)


# --- the other operators ---------------------------------------------------------------------------------------------

NOISE = {"noise, sign": "sign", "noise, truncated normal": "truncated_normal", "noise, uniform": "uniform"}
NORMS = {"normalised step, L2": "l2", "normalised step, Linf": "linf"}
APGD = {"APGD's step, Linf": "linf", "APGD's step, L2": "l2"}
BEST = "best iterate, half of the images better"
CHANNELS_LAST, EPS_ALONE = "sign step, channels_last, constants per channel", "eps drawn for 1,000,000 examples"


def against_reference(call: Callable, nbytes: int) -> Work:
    """The operator, and the same in plain PyTorch on the device."""

    def eager() -> None:
        with DEVICE:
            call(reference)

    return Work({"fused": lambda: call(ops), "eager, fastadv.reference": eager}, nbytes)


def other(case: str, dtype: torch.dtype) -> Work:
    """An operator, with the bytes that its passes must move."""
    if case == EPS_ALONE:
        eps = torch.empty(1_000_000, dtype=dtype, device=DEVICE)
        return against_reference(lambda m: m.truncated_normal_(eps, seed=3), eps.nbytes)
    adv, clean, grad = (random_images(MIDDLE, dtype) for _ in range(3))
    grad -= 0.5
    if case in NOISE:
        return against_reference(lambda m: m.noise_step_(adv, clean, 8.0, NOISE[case], 3, 0, UNIT), 2 * adv.nbytes)
    if case in NORMS:  # one pass for the norm, for L2 another for the distance, and the step
        norm, passes = NORMS[case], {"l2": 1 + 3 + 4, "linf": 1 + 4}[NORMS[case]]
        return against_reference(
            lambda m: m.normalized_step_(adv, clean, grad, 1.0, 8.0, norm, UNIT), passes * adv.nbytes
        )
    if case in APGD:  # for L2 the norm, the distances of two projections, and the step
        norm, passes = APGD[case], {"linf": 4 + 2, "l2": 1 + 3 + 4 + 4 + 2}[APGD[case]]
        previous = random_images(MIDDLE, dtype)
        return against_reference(
            lambda m: m.apgd_step_(adv, previous, clean, grad, 2.0, 8.0, UNIT, norm=norm), passes * adv.nbytes
        )
    if case == BEST:  # images and gradients
        better, best_grad = torch.arange(MIDDLE[0], device=DEVICE) % 2 == 0, torch.zeros_like(grad)
        return against_reference(lambda m: m.keep_best_(clean, best_grad, adv, grad, better), 2 * adv.nbytes)
    adv, clean, grad = (tensor.contiguous(memory_format=torch.channels_last) for tensor in (adv, clean, grad))
    return against_reference(lambda m: m.sign_step_(adv, clean, grad, 1.0, 8.0, IMAGENET), 4 * adv.nbytes)


@without_rival
@pytest.mark.parametrize("dtype", DTYPES, ids=words)
@pytest.mark.parametrize("case", [*NOISE, *NORMS, *APGD, BEST, CHANNELS_LAST])
def test_other(benchmark, case: str, dtype: torch.dtype) -> None:
    measure(benchmark, OTHERS, f"{case}, {words(MIDDLE)}", dtype, other(case, dtype))


@without_rival
def test_eps_alone(benchmark) -> None:
    measure(benchmark, OTHERS, EPS_ALONE, torch.float32, other(EPS_ALONE, torch.float32))


@torch.compile(fullgraph=True)
def compiled_from_pixels(pixels: Tensor, mean: Tensor, std: Tensor, dtype: torch.dtype) -> Tensor:  # [N, C, H, W]
    return ((pixels.float() - mean) / std).to(dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=words)
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("shape", SHAPES, ids=words)
def test_from_pixels(benchmark, shape: tuple[int, ...], layout: str, dtype: torch.dtype) -> None:
    pixels = torch.randint(0, 256, shape, dtype=torch.uint8, device=DEVICE)
    if layout == "channels_last":
        pixels = pixels.contiguous(memory_format=torch.channels_last)
    mirrored = torch.arange(shape[0], device=DEVICE) % 2 == 1
    mean, std = (torch.tensor(c, device=DEVICE).view(3, 1, 1) for c in (IMAGENET.mean, IMAGENET.std))
    variants = {
        "fused": lambda: ops.from_pixels(pixels, None, dtype, IMAGENET),
        "fused, every other image mirrored": lambda: ops.from_pixels(pixels, mirrored, dtype, IMAGENET),
        "torch.compile": lambda: compiled_from_pixels(pixels, mean, std, dtype),
        "eager": lambda: ((pixels.float() - mean) / std).to(dtype),
    }
    work = Work(variants, (1 + dtype.itemsize) * pixels.numel())
    measure(benchmark, OTHERS, f"pixels to images, {layout}, {words(shape)}", dtype, work)


# --- rows of logits --------------------------------------------------------------------------------------------------


@torch.compile(fullgraph=True)
def compiled_target_grad(logits: Tensor) -> tuple[Tensor, Tensor]:  # [N, K] -> [N], [N, K]
    """The closed form, as written for the compiler."""
    target = logits.argmin(dim=1)
    p = logits.float().softmax(dim=1)
    chosen = torch.arange(logits.shape[1], device=logits.device) == target[:, None]
    return target, torch.where(chosen, p - 1, p).to(logits.dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=words)
@pytest.mark.parametrize("shape", LOGITS, ids=words)
def test_target_grad(benchmark, shape: tuple[int, int], dtype: torch.dtype) -> None:
    logits = (4 * torch.randn(shape, device=DEVICE)).to(dtype)

    def eager() -> Tensor:  # the least likely class, then the gradient of its cross-entropy by autograd
        leaf = logits.detach().requires_grad_()
        loss = torch.nn.functional.cross_entropy(leaf, leaf.argmin(dim=1), reduction="sum")
        return torch.autograd.grad(loss, leaf)[0]

    variants = {
        "fused": lambda: ops.target_grad(logits, "least_likely"),
        "torch.compile, closed form": lambda: compiled_target_grad(logits),
        "eager, autograd": eager,
    }
    measured = measure(benchmark, ROWS, f"target_grad, {words(shape)}", dtype, Work(variants, 2 * logits.nbytes))
    if shape[1] == 1000 and shape[0] > 1000:
        target(
            f"target_grad at 1,000 classes, {dtype}: share of a copy", measured.ratio("copy", "fused"), 0.8, 0.8, ".0%"
        )


@pytest.mark.parametrize("dtype", DTYPES, ids=words)
@pytest.mark.parametrize("shape", LOGITS, ids=words)
def test_dlr(benchmark, shape: tuple[int, int], dtype: torch.dtype) -> None:
    """The DLR loss of each row, and its derivative."""
    logits = (4 * torch.randn(shape, device=DEVICE)).to(dtype)
    labels = torch.randint(0, shape[1], shape[:1], device=DEVICE)

    def fused() -> object:
        return ops.row_losses(logits, labels, "dlr"), ops.scaled_target_grad(logits, "dlr", labels)

    def eager() -> object:
        leaf = logits.detach().requires_grad_()
        losses = dlr_as_torchattacks(leaf, labels)
        return losses.detach(), torch.autograd.grad(losses.sum(), leaf)[0]

    work = Work({"fused": fused, "eager, autograd": eager}, 3 * logits.nbytes)
    measure(benchmark, ROWS, f"DLR loss and derivative, {words(shape)}", dtype, work)


def weighted_loss(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:  # [m, K], [m], [m] -> scalar
    losses = torch.nn.functional.cross_entropy(logits.float(), labels, reduction="none")
    return (weights * losses).sum() / weights.sum()


compiled_weighted_loss = torch.compile(weighted_loss, fullgraph=True)


@pytest.mark.parametrize("dtype", DTYPES, ids=words)
@pytest.mark.parametrize("shape", LOGITS, ids=words)
def test_mixed_cross_entropy(benchmark, shape: tuple[int, int], dtype: torch.dtype) -> None:
    logits = (4 * torch.randn(shape, device=DEVICE)).to(dtype)
    labels = torch.randint(0, shape[1], shape[:1], device=DEVICE)
    k, weights = shape[0] // 2, torch.ones(shape[0], device=DEVICE)
    weights[:k] = 0.3

    def gradient_of(loss: Callable[[Tensor], Tensor]) -> Callable[[], Tensor]:
        def gradient() -> Tensor:
            leaf = logits.detach().requires_grad_()
            return torch.autograd.grad(loss(leaf), leaf)[0]

        return gradient

    variants = {
        "fused": gradient_of(lambda leaf: ops.mixed_cross_entropy(leaf, labels, k, 0.3)),
        "torch.compile": gradient_of(lambda leaf: compiled_weighted_loss(leaf, labels, weights)),
        "eager, autograd": gradient_of(lambda leaf: weighted_loss(leaf, labels, weights)),
    }
    # Logits read; their float32 derivative written, and read again for the gradient in the logits' dtype.
    work = Work(variants, 2 * logits.nbytes + 2 * 4 * logits.numel())
    measure(benchmark, ROWS, f"mixed_cross_entropy and its gradient, {words(shape)}", dtype, work)


def divergence_loss(logits: Tensor, adv_logits: Tensor, labels: Tensor) -> Tensor:  # [m, K], [m, K], [m] -> scalar
    log_p, log_q = logits.float().log_softmax(dim=1), adv_logits.float().log_softmax(dim=1)
    divergence = torch.nn.functional.kl_div(log_q, log_p, reduction="batchmean", log_target=True)
    return torch.nn.functional.cross_entropy(logits.float(), labels) + 6.0 * divergence


compiled_divergence_loss = torch.compile(divergence_loss, fullgraph=True)


@pytest.mark.parametrize("dtype", DTYPES, ids=words)
@pytest.mark.parametrize("shape", LOGITS, ids=words)
def test_trades_loss(benchmark, shape: tuple[int, int], dtype: torch.dtype) -> None:
    values = [(4 * torch.randn(shape, device=DEVICE)).to(dtype) for _ in range(2)]
    labels = torch.randint(0, shape[1], shape[:1], device=DEVICE)

    def gradients_of(loss: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Callable[[], tuple[Tensor, ...]]:
        def gradients() -> tuple[Tensor, ...]:
            leaves = [each.detach().requires_grad_() for each in values]
            return torch.autograd.grad(loss(*leaves, labels), leaves)

        return gradients

    variants = {
        "fused": gradients_of(ops.trades_loss),
        "torch.compile": gradients_of(compiled_divergence_loss),
        "eager, autograd": gradients_of(divergence_loss),
    }
    # Of each of the two what mixed_cross_entropy moves.
    work = Work(variants, 2 * (2 * values[0].nbytes + 2 * 4 * values[0].numel()))
    measure(benchmark, ROWS, f"trades_loss and its gradients, {words(shape)}", dtype, work)


# --- launches --------------------------------------------------------------------------------------------------------


@without_rival
@pytest.mark.skipif(REHEARSAL, reason="a rehearsal on the CPU launches nothing")
@pytest.mark.parametrize("what", ["kernels of a CIFAR-size step", "kernels of target_grad"])
def test_one_launch(what: str) -> None:
    adv, clean, grad = (random_images((128, 3, 32, 32), torch.float32) for _ in range(3))
    logits = torch.randn(256, 1000, device=DEVICE)
    work = {
        "kernels of a CIFAR-size step": lambda: ops.sign_step_(adv, clean, grad, 1.0, 8.0, UNIT),
        "kernels of target_grad": lambda: ops.target_grad(logits, "least_likely"),
    }[what]
    work()
    kernels = launches(work).kernels
    TARGETS.rows.append([what, str(len(kernels)), "1", "1", "target" if len(kernels) == 1 else "no"])
    assert len(kernels) == 1, kernels
