"""Shared by the attack tests: networks to compute by hand, one with every layer that needs care, and images."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fastadv import PixelSpace

SPACES = {
    "raw": PixelSpace.raw(),
    "unit": PixelSpace.unit(),
    "symmetric": PixelSpace.symmetric(),
    "imagenet": PixelSpace.imagenet(),
}
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
CLASSES = 5  # of ConvNet


class PixelLogits(nn.Module):
    """The logits are the pixels themselves, times ``scale``: the label's pixel falls under FGSM, the others rise."""

    def __init__(self, space: PixelSpace, scale: float = 0.01) -> None:
        super().__init__()
        self.space = space
        self.scale = nn.Parameter(torch.tensor(scale, dtype=torch.float64))

    def forward(self, images: Tensor) -> Tensor:  # [N, C, H, W] -> [N, C * H * W]
        return self.scale.to(images.dtype) * self.space.to_pixels(images).flatten(1).to(images.dtype)


class LinearOnPixels(nn.Module):
    """Three classes with probabilities 0.5, 0.3 and 0.2 at the given pixels, and weights small enough to stay there.

    d logit / d pixel is ``WEIGHTS * 1e-5``, so that the cost's gradient on the pixels is WEIGHTS^T d, where d is the
    cost's derivative with respect to the logits.
    """

    # Of the classes (rows) on six pixels (columns).
    WEIGHTS = (
        (10.0, 0.0, -10.0, 0.0, 0.0, 10.0),
        (0.0, 10.0, 10.0, 10.0, 0.0, -10.0),
        (-10.0, -10.0, 0.0, 0.0, 0.0, 0.0),
    )

    def __init__(self, space: PixelSpace, pixels: Tensor) -> None:  # pixels [1, 3, 1, 2]
        super().__init__()
        self.space = space
        self.weight = nn.Parameter(1e-5 * torch.tensor(self.WEIGHTS, dtype=torch.float64))  # [3, 6]
        log_p = torch.tensor([math.log(p) for p in (0.5, 0.3, 0.2)], dtype=torch.float64)
        self.bias = nn.Parameter(log_p - self.weight.detach() @ pixels.double().flatten())  # [3]

    def forward(self, images: Tensor) -> Tensor:  # [N, 3, 1, 2] -> [N, 3]
        pixels = self.space.to_pixels(images).double().flatten(1)  # [N, 6]
        return pixels @ self.weight.t() + self.bias


class ConvNet(nn.Module):
    """Convolutions, BatchNorm and Dropout on 3 x 8 x 8 images, smooth, so that a rounding does not flip a unit."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.features = nn.Sequential(
                *(nn.Conv2d(3, 7, 3, padding=1, bias=False), nn.BatchNorm2d(7), nn.SiLU()),
                *(nn.Conv2d(7, 9, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(9), nn.SiLU()),
                nn.Dropout(0.5),
            )
            self.head = nn.Linear(9 * 16, CLASSES)
            for buffer in self.buffers():  # running statistics unlike any batch's
                if buffer.is_floating_point():
                    buffer.uniform_(0.5, 1.5)

    def forward(self, images: Tensor) -> Tensor:  # [N, 3, 8, 8] -> [N, CLASSES]
        return self.head(self.features(images).flatten(1))


class Heads(NamedTuple):
    """Output of a network with an auxiliary head: [N, CLASSES] each."""

    logits: Tensor
    aux: Tensor


class WithAux(ConvNet):
    """ConvNet with auxiliary logits from a middle layer."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__(seed)
        with torch.random.fork_rng():
            torch.manual_seed(seed + 1)
            self.aux = nn.Linear(7 * 64, CLASSES)

    def forward_with_aux(self, images: Tensor) -> Heads:  # [N, 3, 8, 8] -> [N, CLASSES] twice
        middle = self.features[:3](images)  # [N, 7, 8, 8]
        return Heads(self.head(self.features[3:](middle).flatten(1)), self.aux(middle.flatten(1)))


class Residual(nn.Module):
    """A residual block whose shortcut also has a convolution and a BatchNorm; the activation follows the sum."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.stem = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), nn.SiLU())
            self.block = nn.Sequential(
                *(nn.Conv2d(6, 8, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(8), nn.SiLU()),
                *(nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)),
            )
            self.shortcut = nn.Sequential(nn.Conv2d(6, 8, 1, stride=2, bias=False), nn.BatchNorm2d(8))
            self.head = nn.Linear(8 * 16, CLASSES)

    def forward(self, images: Tensor) -> Tensor:  # [N, 3, 8, 8] -> [N, CLASSES]
        x = self.stem(images)  # [N, 6, 8, 8]
        x = nn.functional.silu(self.block(x) + self.shortcut(x))  # [N, 8, 4, 4]
        return self.head(x.flatten(1))


def without_batch_norm() -> nn.Module:
    """Convolutions, biases and an activation, from images [N, 3, 8, 8] to logits [N, CLASSES]."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            *(nn.Conv2d(3, 7, 3, padding=1), nn.SiLU(), nn.Conv2d(7, 9, 3, stride=2, padding=1), nn.SiLU()),
            *(nn.Flatten(), nn.Linear(9 * 16, CLASSES)),
        )


def batch(
    n: int = 6,
    space: PixelSpace | None = None,
    dtype: torch.dtype = torch.float32,
    shape: tuple[int, ...] = (3, 8, 8),
    seed: int = 0,
) -> tuple[Tensor, Tensor]:
    """Return (images [N, C, ...] of uint8 pixel values in the space, many at both ends of the range, labels [N])."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(-20, 276, (n, *shape), generator=generator).clamp_(0, 255)
    labels = torch.randint(0, CLASSES, (n,), generator=generator)
    return (space or PixelSpace.unit()).from_pixels(pixels, dtype), labels


def assert_in_range(adv: Tensor, space: PixelSpace) -> None:
    """Check in exact arithmetic that no value is outside, not even by one ulp."""
    mean, std = (values * (3 // space.channels) for values in (space.mean, space.std))  # of 3 channels
    for channel in range(3):
        for extreme in adv[:, channel].aminmax():
            pixel = Fraction(extreme.item()) * Fraction(std[channel]) + Fraction(mean[channel])
            assert space.lower <= pixel <= space.upper
