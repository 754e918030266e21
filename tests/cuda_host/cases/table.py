"""Every operator, and the calls of the CUDA runtime that the host makes for it, in order.

Blocks are counted by hand. 64 images of 3 x 299 x 299 are 17,164,992 elements; a block's 256 threads take 1,024 of them
in float32, four to a pack of 16 bytes, or 256 where the operands' addresses allow no packs. Steps over long runs take
them in tiles: in float32 131 of 2,048 an image where channels share their constants, 44 a channel where not; in half
precision with the channels last 66 of 4,096 an image; along a norm 262 of 1,024 an image. An example has 17 chunks of
16,384. 64 rows of logits take a warp each, or a block where there are more than 1,024 classes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from fastadv import PixelSpace, ops

Call = Callable[[], object]
IMAGES, FEW = (64, 3, 299, 299), (2, 3, 4, 4)
RAW, IMAGENET = PixelSpace.raw(), PixelSpace.imagenet()
LAST = torch.channels_last
HALF, BRAIN, WIDE = torch.float16, torch.bfloat16, torch.float64


class New:
    """Makes tensors on a device, without values: none is read here."""

    def __init__(self, device: int) -> None:
        self.device = torch.device("cuda", device)

    def __call__(self, *shape: int, dtype: torch.dtype = torch.float32, **options: Any) -> Tensor:
        return torch.empty(shape, dtype=dtype, device=self.device, **options)

    def images(self, count: int, dtype: torch.dtype = torch.float32, **options: Any) -> list[Tensor]:
        return [self(*IMAGES, dtype=dtype, **options) for _ in range(count)]

    def at_odd_offsets(self) -> list[Tensor]:
        """adv, clean and grad, each at a different offset from an aligned address."""
        count = torch.Size(IMAGES).numel()
        return [self(count + offset)[offset:].view(IMAGES) for offset in (1, 2, 3)]

    def labels(self) -> Tensor:
        return self(64, dtype=torch.int64)

    def stream(self) -> Tensor:
        return self(2, dtype=torch.int64)


def first(step: Callable[..., Tensor], images: list[Tensor], *rest: Any) -> Call:
    """A step from the clean images."""
    adv, grad = images
    return partial(step, adv, adv, grad, *rest)


# cudaGetDevice comes first, twice if PyTorch allocates in between; the launches are followed by their result.
DEVICE, RESULT = "cudaGetDevice", "cudaGetLastError"
TWICE = [DEVICE, DEVICE]
SO_FAR = "cudaPeekAtLastError"
RESIDENT = ["cudaGetDevice", "cudaDeviceGetAttribute"]  # for a grid of all resident blocks, 8 x 132
NORM = "partial_kernel<float, 4, false, {}, {}> x 1088"
FINISH = "finish_kernel<float, {}> x 64"
MAXIMA = [NORM.format("GradientMax", "Larger"), FINISH.format("Larger")]
SQUARES = [NORM.format("GradientSquares", "Add"), FINISH.format("Add")]
DISTANCES = [NORM.format("DistanceSquares", "Add"), FINISH.format("Add")]
PREPARE = "prepare_kernel<float> x 1"

# The operator's name is before the comma. Each function makes the operands and returns the call.
OPERATORS: dict[str, tuple[Callable[[New], Call], list[str]]] = {
    "sign_step_, first": (
        lambda new: first(ops.sign_step_, new.images(2), 1.0, 8.0),
        [DEVICE, "tile_step_kernel<float, 1, SignRule<true>> x 8384", RESULT],
    ),
    "sign_step_, later": (
        lambda new: partial(ops.sign_step_, *new.images(3), 1.0, 8.0),
        [DEVICE, "tile_step_kernel<float, 1, SignRule<false>> x 8384", RESULT],
    ),
    "sign_step_, constants of each channel": (
        lambda new: partial(ops.sign_step_, *new.images(3), 1.0, 8.0, IMAGENET),
        [DEVICE, "tile_step_kernel<float, 1, SignRule<false>> x 8448", RESULT],
    ),
    "sign_step_, per example, channels_last": (
        lambda new: partial(ops.sign_step_, *new.images(3, HALF, memory_format=LAST), new(64), new(64), IMAGENET),
        [DEVICE, "tile_step_kernel<__half, 3, SignRule<false>> x 4224", RESULT],
    ),
    "sign_step_, odd addresses": (
        lambda new: partial(ops.sign_step_, *new.at_odd_offsets(), 1.0, 8.0),
        [DEVICE, "step_kernel<float, 1, false, SignRule<false>> x 67051", RESULT],
    ),
    "sign_step_, few": (
        lambda new: partial(ops.sign_step_, new(*FEW), new(*FEW), new(*FEW), 1.0, 8.0),
        [DEVICE, "step_kernel<float, 4, false, SignRule<false>> x 1", RESULT],
    ),
    "sign_step_, none": (
        lambda new: partial(ops.sign_step_, new(0, 3, 4, 4), new(0, 3, 4, 4), new(0, 3, 4, 4), 1.0, 8.0),
        [DEVICE],
    ),
    "normalized_step_, l2, first": (
        lambda new: first(ops.normalized_step_, new.images(2), 1.0, 8.0, "l2"),
        [*TWICE, PREPARE, *SQUARES, SO_FAR, "tile_step_kernel<float, 1, NormalizedRule<true>> x 16768", RESULT],
    ),
    "normalized_step_, l2, later": (
        lambda new: partial(ops.normalized_step_, *new.images(3), 1.0, 8.0, "l2"),
        [
            *(*TWICE, PREPARE, *SQUARES, *DISTANCES, SO_FAR),
            *("tile_step_kernel<float, 1, NormalizedRule<false>> x 16768", RESULT),
        ],
    ),
    "normalized_step_, linf": (
        lambda new: partial(ops.normalized_step_, *new.images(3), 1.0, 8.0, "linf"),
        [*TWICE, PREPARE, *MAXIMA, SO_FAR, "tile_step_kernel<float, 1, NormalizedRule<false>> x 16768", RESULT],
    ),
    "normalized_step_, l2, float64": (
        lambda new: first(ops.normalized_step_, new.images(2, WIDE), 1.0, 8.0, "l2"),
        [
            *(*TWICE, "prepare_kernel<double> x 1"),
            *("partial_kernel<double, 2, false, GradientMax, Larger> x 1088", "finish_kernel<double, Larger> x 64"),
            *("partial_kernel<double, 2, false, GradientSquares, Add> x 1088", "finish_kernel<double, Add> x 64"),
            *(SO_FAR, "step_kernel<double, 2, false, NormalizedRule<true>> x 33526", RESULT),
        ],
    ),
    "normalized_step_, none": (
        lambda new: partial(ops.normalized_step_, new(0, 3, 4, 4), new(0, 3, 4, 4), new(0, 3, 4, 4), 1.0, 8.0, "l2"),
        TWICE,
    ),
    "apgd_step_, linf": (
        lambda new: partial(ops.apgd_step_, *new.images(4), 1.0, 8.0),
        [DEVICE, "tile_step_kernel<float, 1, ApgdSignRule<float>> x 16768", RESULT],
    ),
    "apgd_step_, linf, channels_last": (
        lambda new: partial(ops.apgd_step_, *new.images(4, HALF, memory_format=LAST), new(64), new(64), IMAGENET),
        [DEVICE, "tile_step_kernel<__half, 3, ApgdSignRule<float>> x 8448", RESULT],
    ),
    "apgd_step_, l2": (
        lambda new: partial(ops.apgd_step_, *new.images(4), 1.0, 8.0, norm="l2"),
        [
            *(*TWICE, PREPARE, *SQUARES, *DISTANCES),
            *(NORM.format("MomentumDistanceSquares<float>", "Add"), FINISH.format("Add"), SO_FAR),
            *("tile_step_kernel<float, 1, ApgdUnitRule<float>> x 16768", RESULT),
        ],
    ),
    "apgd_step_, none": (
        lambda new: partial(ops.apgd_step_, *(new(0, 3, 4, 4) for _ in range(4)), 1.0, 8.0, norm="l2"),
        TWICE,
    ),
    "keep_best_": (
        lambda new: partial(ops.keep_best_, *new.images(4), new(64, dtype=torch.bool)),
        [DEVICE, "keep_best_kernel<unsigned int, 4> x 1088", RESULT],
    ),
    "keep_best_, without gradients, odd addresses": (
        lambda new: partial(
            ops.keep_best_,
            new(33, dtype=HALF)[1:].view(2, 16),
            None,
            new(2, 16, dtype=HALF),
            None,
            new(2, dtype=torch.bool),
        ),
        [DEVICE, "keep_best_kernel<unsigned short, 1> x 2", RESULT],
    ),
    "keep_best_, none": (
        lambda new: partial(ops.keep_best_, new(0, 3), None, new(0, 3), None, new(0, dtype=torch.bool)),
        [DEVICE],
    ),
    "noise_step_": (
        lambda new: partial(ops.noise_step_, *new.images(2), 8.0, "truncated_normal", 1),
        [DEVICE, "noise_kernel<float, 4, false> x 16763", RESULT],
    ),
    "noise_step_, stream on the device": (
        lambda new: partial(
            ops.noise_step_, *new.images(2, BRAIN, memory_format=LAST), new(64), "uniform", new.stream()
        ),
        [DEVICE, "noise_kernel<__nv_bfloat16, 8, true> x 8382", RESULT],
    ),
    "truncated_normal_": (
        lambda new: partial(ops.truncated_normal_, new(1000), seed=1),
        [DEVICE, "truncated_normal_kernel<float> x 4", RESULT],
    ),
    "sample_eps": (
        lambda new: partial(ops.sample_eps, 64, seed=1, device=new.device),
        [DEVICE, "truncated_normal_kernel<float> x 1", RESULT],
    ),
    "from_pixels": (
        lambda new: partial(
            ops.from_pixels, new(*IMAGES, dtype=torch.uint8), new(64, dtype=torch.bool), HALF, IMAGENET
        ),
        [DEVICE, *RESIDENT, "tile_lookup_kernel<__half, 1> x 1056", RESULT],
    ),
    "from_pixels, few": (
        lambda new: partial(ops.from_pixels_, new(*FEW), new(*FEW, dtype=torch.uint8)),
        [DEVICE, *RESIDENT, "lookup_kernel<float, false> x 1", RESULT],
    ),
    "from_pixels, many channels": (
        lambda new: partial(
            ops.from_pixels, new(64, 8, 99, 99, dtype=torch.uint8), space=PixelSpace(tuple(range(8)), (1.0,) * 8)
        ),
        [DEVICE, *RESIDENT, "formula_kernel<float, false> x 1056", RESULT],
    ),
    "target_grad": (
        lambda new: partial(ops.target_grad, new(64, 1000), "least_likely"),
        [*TWICE, "target_grad_kernel<RegisterRow<float, float, true>> x 8", RESULT],
    ),
    "target_grad, many classes": (
        lambda new: partial(ops.target_grad, new(64, 1025, dtype=BRAIN), "label", new.labels()),
        [*TWICE, "target_grad_kernel<MemoryRow<__nv_bfloat16, __nv_bfloat16, 256>> x 64", RESULT],
    ),
    "target_grad, none": (lambda new: partial(ops.target_grad, new(0, 10), "predicted"), TWICE),
    "scaled_target_grad": (
        lambda new: partial(ops.scaled_target_grad, new(64, 1000), "random", seed=new.stream()),
        [*TWICE, "target_grad_kernel<RegisterRow<float, float, true>> x 8", RESULT],
    ),
    "target_grad, dlr": (
        lambda new: partial(ops.target_grad, new(64, 1000), "dlr", new.labels()),
        [*TWICE, "margin_grad_kernel<MemoryRow<float, float, 32>> x 8", RESULT],
    ),
    "scaled_target_grad, targeted_dlr, many classes": (
        lambda new: partial(
            ops.scaled_target_grad, new(64, 1025, dtype=HALF), "targeted_dlr", new.labels(), targets=new.labels()
        ),
        [*TWICE, "margin_grad_kernel<MemoryRow<__half, __half, 256>> x 64", RESULT],
    ),
    "target_grad, margin, none": (
        lambda new: partial(ops.target_grad, new(0, 10), "margin", new(0, dtype=torch.int64)),
        TWICE,
    ),
    "row_losses": (
        lambda new: partial(ops.row_losses, new(64, 1000), new.labels(), "log_odds"),
        [*TWICE, "log_odds_kernel<MemoryRow<float, float, 32>> x 8", RESULT],
    ),
    "row_losses, dlr, many classes": (
        lambda new: partial(ops.row_losses, new(64, 1025, dtype=BRAIN), new.labels(), "dlr"),
        [*TWICE, "margin_loss_kernel<MemoryRow<__nv_bfloat16, __nv_bfloat16, 256>> x 64", RESULT],
    ),
    "row_losses, none": (lambda new: partial(ops.row_losses, new(0, 10), new(0, dtype=torch.int64), "ce"), TWICE),
    "mixed_cross_entropy": (
        lambda new: partial(ops.mixed_cross_entropy, new(64, 1000), new.labels(), 16),
        [*TWICE, "mixed_kernel<RegisterRow<float, float, true>> x 8", "total_kernel<float> x 1", RESULT],
    ),
    "scaled_kl_grad": (
        lambda new: partial(ops.scaled_kl_grad, new(64, 1000), new(64, 1000)),
        [*TWICE, "kl_grad_kernel<PairOfRows<float, 32>> x 8", RESULT],
    ),
    "scaled_kl_grad, many classes": (
        lambda new: partial(ops.scaled_kl_grad, new(64, 1025, dtype=BRAIN), new(64, 1025, dtype=BRAIN)),
        [*TWICE, "kl_grad_kernel<PairOfRows<__nv_bfloat16, 256>> x 64", RESULT],
    ),
    "scaled_kl_grad, none": (lambda new: partial(ops.scaled_kl_grad, new(0, 10), new(0, 10)), TWICE),
    "trades_loss": (
        lambda new: partial(ops.trades_loss, new(64, 1000), new(64, 1000), new.labels()),
        [*TWICE, "trades_kernel<PairOfRows<float, 32>> x 8", "total_kernel<float> x 1", RESULT],
    ),
    "trades_loss, many classes": (
        lambda new: partial(ops.trades_loss, new(64, 1025, dtype=HALF), new(64, 1025, dtype=HALF), new.labels()),
        [*TWICE, "trades_kernel<PairOfRows<__half, 256>> x 64", "total_kernel<float> x 1", RESULT],
    ),
    "mixed_cross_entropy, many classes": (
        lambda new: partial(ops.mixed_cross_entropy, new(64, 1025, dtype=HALF), new.labels(), 16),
        [*TWICE, "mixed_kernel<MemoryRow<__half, float, 256>> x 64", "total_kernel<float> x 1", RESULT],
    ),
}


def launch_begins(expected: list[str]) -> int:
    """Index of the cudaGetDevice that belongs to the launch."""
    return int(expected[:2] == TWICE and expected[1:3] != RESIDENT)


def operator(name: str) -> str:
    """The name in an operator's errors: those that allocate a result call one that works in place."""
    in_place = {"sample_eps": "truncated_normal_", "from_pixels": "from_pixels_"}
    stem = name.partition(",")[0]
    return in_place.get(stem, stem)
