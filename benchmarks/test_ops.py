"""The fused step and the fused normalisation, compared with eager PyTorch, torch.compile and memory bandwidth.

Ceiling: a stream that reads and writes as many bytes. Baselines: the operators that other packages launch for the same
work. One benchmark times a round of all variants; the report has the medians and quartiles of times, and of what is
divided in each round.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from benchmarks.harness import TABLES, Interleaved, Table
from fastadv import PixelSpace, ops, reference

UNIT, IMAGENET = PixelSpace.unit(), PixelSpace.imagenet()
EPS, ALPHA = 8 / 255, 1 / 255
SHAPES = {"32 x 3 x 299 x 299": (32, 3, 299, 299), "128 x 3 x 32 x 32": (128, 3, 32, 32)}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
ROUNDS = 25

HEADER = [
    *("shape", "dtype", "variant", "ms (quartiles)", "GB/s"),
    *("share of the stream (quartiles)", "fused is faster by (quartiles)"),
]
ITERATIVE = Table(
    "A step of an iterative attack",
    HEADER,
    notes=["GB/s counts what the work itself needs, three reads and one write per element, whatever a variant moves."],
)
FIRST = Table("A single step from the clean image", HEADER, notes=["Two reads and one write per element."])
PIXELS = Table(
    "Decoded images to a model's input, in channels_last",
    HEADER,
    notes=["A byte read and an element written. The stream converts the bytes, and neither normalises nor mirrors."],
)
TABLES.extend([ITERATIVE, FIRST, PIXELS])


Variants = dict[str, Callable[[], object]]


def images(shape: tuple[int, ...], dtype: torch.dtype, seed: int) -> Tensor:
    """Random data, because zeros can be faster than real images."""
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def clip(moved: Tensor, clean: Tensor) -> Tensor:
    return torch.clamp(torch.minimum(torch.maximum(moved, clean - EPS), clean + EPS), 0, 1)


@torch.compile(fullgraph=True)
def compiled_step(adv: Tensor, clean: Tensor, grad: Tensor) -> Tensor:
    return clip(adv + ALPHA * grad.sign(), clean)


@torch.compile(fullgraph=True)
def compiled_step_(adv: Tensor, clean: Tensor, grad: Tensor) -> None:
    adv.copy_(clip(adv + ALPHA * grad.sign(), clean))


@torch.compile(fullgraph=True)
def compiled_first(clean: Tensor, grad: Tensor) -> Tensor:
    return torch.clamp(clean + EPS * grad.sign(), 0, 1)


def iterative_variants(shape: tuple[int, ...], dtype: torch.dtype) -> Variants:
    adv, clean, grad = (images(shape, dtype, seed) for seed in range(3))
    grad -= 0.5
    stream = [images((adv.nbytes // 4,), torch.float32, seed) for seed in range(3)]

    def torchattacks_pgd() -> Tensor:  # its seven full-size operators
        moved = adv.detach() + ALPHA * grad.sign()
        delta = torch.clamp(moved - clean, min=-EPS, max=EPS)
        return torch.clamp(clean + delta, min=0, max=1).detach()

    delta = adv - clean
    lower, upper = (clean - EPS).clamp_(min=0), (clean + EPS).clamp_(max=1)

    def five_operators() -> Tensor:  # sign, add, clamp, add, clamp on a perturbation that is kept
        delta.add_(grad.sign(), alpha=ALPHA).clamp_(-EPS, EPS)
        return (clean + delta).clamp_(0, 1)

    def three_operators() -> Tensor:  # sign, add, clamp between bounds made once: two more tensors are kept
        return adv.add(grad.sign(), alpha=ALPHA).clamp_(lower, upper)

    return {
        "fused": lambda: ops.sign_step_(adv, clean, grad, 1.0, 8.0, UNIT),
        "stream": lambda: stream[0].addcmul_(stream[1], stream[2], value=1e-6),
        "torch.compile, in place": lambda: compiled_step_(adv, clean, grad),
        "torch.compile": lambda: compiled_step(adv, clean, grad),
        "eager, three operators": three_operators,
        "eager, five operators": five_operators,
        "eager, torchattacks' PGD": torchattacks_pgd,
        "fastadv.reference": lambda: reference.sign_step_(adv, clean, grad, 1.0, 8.0, UNIT),
    }


def first_variants(shape: tuple[int, ...], dtype: torch.dtype) -> Variants:
    clean, grad = images(shape, dtype, 0), images(shape, dtype, 1) - 0.5
    stream = [images((clean.nbytes // 4,), torch.float32, seed) for seed in range(2)]
    return {
        "fused": lambda: ops.sign_step_(clean, clean, grad, 8.0, 8.0, UNIT),
        "stream": lambda: stream[0].add_(stream[1], alpha=1e-6),
        "torch.compile": lambda: compiled_first(clean, grad),
        "eager": lambda: torch.clamp(clean + EPS * grad.sign(), 0, 1),
    }


def normalized(pixels: Tensor, dtype: torch.dtype) -> Tensor:
    """The same as torchvision's ToDtype and Normalize."""
    mean, std = (torch.tensor(constants).view(3, 1, 1) for constants in (IMAGENET.mean, IMAGENET.std))
    return ((pixels.float() - mean) / std).to(dtype)


compiled_normalized = torch.compile(normalized, fullgraph=True)


def pixels_variants(shape: tuple[int, ...], dtype: torch.dtype) -> Variants:
    pixels = (255 * images(shape, torch.float32, 0)).to(torch.uint8).contiguous(memory_format=torch.channels_last)
    mirrored = torch.arange(len(pixels)) % 2 == 1

    def eager_mirrored() -> Tensor:
        made = normalized(pixels, dtype)
        return torch.where(mirrored.view(-1, 1, 1, 1), made.flip(-1), made)

    return {
        "fused": lambda: ops.from_pixels(pixels, None, dtype, IMAGENET),
        "fused, every other image mirrored": lambda: ops.from_pixels(pixels, mirrored, dtype, IMAGENET),
        "stream": lambda: pixels.to(dtype),
        "torch.compile": lambda: compiled_normalized(pixels, dtype),
        "eager": lambda: normalized(pixels, dtype),
        "eager, every other image mirrored": eager_mirrored,
        "fastadv.reference": lambda: reference.from_pixels(pixels, None, dtype, IMAGENET),
    }


# Variants, table, and the bytes to move for an element of the given size.
CASES = {
    "iterative": (iterative_variants, ITERATIVE, lambda size: 4 * size),
    "first": (first_variants, FIRST, lambda size: 3 * size),
    "pixels": (pixels_variants, PIXELS, lambda size: 1 + size),
}


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("case", CASES)
def test_operator(benchmark, case: str, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    make, table, moved = CASES[case]
    interleaved = Interleaved(make(shape, dtype))
    benchmark.group = case
    benchmark.pedantic(interleaved.round, rounds=ROUNDS)
    timings = interleaved.timings()
    gigabytes = moved(dtype.itemsize) * torch.Size(shape).numel() / 1e9
    names = {tuple(shape): name for name, shape in SHAPES.items()}
    for name, timing in timings.items():
        share, ratio = interleaved.ratio("stream", name), interleaved.ratio(name, "fused")
        medians = {"share of the stream": share.median, "times fused": ratio.median}
        benchmark.extra_info[name] = {"ms": 1e3 * timing.median, **medians}
        table.rows.append(
            [
                *(names[tuple(shape)], str(dtype).removeprefix("torch."), name, timing.text),
                *(f"{gigabytes / timing.median:.1f}", share.percent, ratio.text),
            ]
        )
