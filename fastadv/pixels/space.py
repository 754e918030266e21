"""PixelSpace: how pixel values in [0, 255] map to a model's input, and the exact bounds of that input."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from numbers import Real

import numpy as np
import torch
from torch import Tensor

from fastadv.pixels.range_check import channel_extremes, check_extremes, warn_of_unit_scale
from fastadv.utils.input_hints import batch_dim_hint
from fastadv.utils.text import counted
from fastadv.utils.validation import is_number

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
MOST_CHANNELS = 32  # with different constants, in the operators
_Bounds = tuple[tuple[float, ...], tuple[float, ...]]  # lower and upper, per channel
IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)


@dataclass(frozen=True, repr=False)
class PixelSpace:
    """The model's input is ``(pixel - mean) / std`` per channel, with pixels in [lower, upper].

    Every ``eps`` and ``alpha`` in this package is in pixel values. A PixelSpace converts them to the scale of the
    model's input, so that no attack needs to denormalise and renormalise images.

    Args:
        mean: a number, or one per channel, in pixel values. For constants on a [0, 1] scale, such as those of
            ``torchvision.transforms.Normalize``, use :meth:`normalized`.
        std: a positive number, or one per channel, in pixel values.
        lower: the smallest pixel value.
        upper: the largest pixel value.

    Attributes:
        uniform: true if all channels have the same constants.

    Raises:
        ValueError: if std is not positive, bounds are out of order, mean and std differ in length, or both are clearly
            on a [0, 1] scale.
        TypeError: if mean or std is neither a number nor a sequence of numbers.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    lower: float = 0.0
    upper: float = 255.0
    uniform: bool = field(init=False, compare=False)

    def __init__(
        self,
        mean: float | Sequence[float],
        std: float | Sequence[float],
        lower: float = 0.0,
        upper: float = 255.0,
    ) -> None:
        mean, std = _per_channel("mean", mean), _per_channel("std", std)
        channels = max(len(mean), len(std))
        if len(mean) not in (1, channels) or len(std) not in (1, channels):
            raise ValueError(f"mean and std must have the same number of channels, got {len(mean)} and {len(std)}")
        if not all(value > 0 and value < float("inf") for value in std):
            raise ValueError(f"std must be positive and finite, got {std}")
        if not all(abs(value) < float("inf") for value in mean):
            raise ValueError(f"mean must be finite, got {mean}")
        if not (is_number(lower) and is_number(upper) and lower < upper):
            raise ValueError(f"lower must be below upper and both finite, got lower={lower!r}, upper={upper!r}")
        identity = set(mean) == {0.0} and set(std) == {1.0}
        if not identity and upper - lower > 1 and max(*map(abs, mean), *std) <= 1:
            raise ValueError(
                f"mean={mean} and std={std} look like constants on a [0, 1] scale, but here they are in pixel values "
                f"of [{lower:g}, {upper:g}]: use PixelSpace.normalized(mean, std)"
            )
        object.__setattr__(self, "mean", mean * (channels // len(mean)))
        object.__setattr__(self, "std", std * (channels // len(std)))
        object.__setattr__(self, "lower", float(lower))
        object.__setattr__(self, "upper", float(upper))
        # Computed here rather than on demand: a compiled function can read them, but not trace how they are computed.
        object.__setattr__(self, "uniform", len(set(zip(self.mean, self.std, strict=True))) == 1)
        bounds = {dtype: _bounds(self, dtype) for dtype in DTYPES}
        object.__setattr__(self, "_bounds", bounds)
        if bounds[torch.float64] is None:
            raise ValueError(
                f"no dtype can represent the inputs that mean={mean}, std={std} give for [{lower:g}, {upper:g}]"
            )

    @classmethod
    def raw(cls) -> PixelSpace:
        """Input is the pixel value, in [0, 255]."""
        return _RAW

    @classmethod
    def unit(cls) -> PixelSpace:
        """Input in [0, 1], as from ``torchvision.transforms.ToTensor``."""
        return _UNIT

    @classmethod
    def symmetric(cls) -> PixelSpace:
        """Input in [-1, 1], as the Inception networks take it."""
        return _SYMMETRIC

    @classmethod
    def imagenet(cls) -> PixelSpace:
        """Input normalised by ImageNet's usual per-channel mean and standard deviation."""
        return _IMAGENET

    @classmethod
    def normalized(cls, mean: float | Sequence[float], std: float | Sequence[float]) -> PixelSpace:
        """Input is ``(pixel / 255 - mean) / std``, with the constants of ``torchvision.transforms.Normalize``.

        Args:
            mean: a number, or one per channel, on a scale of [0, 1].
            std: a positive number, or one per channel, on a scale of [0, 1].

        Raises:
            ValueError: as for the constructor, or if mean is not on a scale of [0, 1].
        """
        if max(map(abs, _per_channel("mean", mean))) > 1:
            raise ValueError(
                f"mean={mean} is not on a [0, 1] scale: for constants in pixel values, use PixelSpace(mean, std)"
            )
        return cls(_times_255("mean", mean), _times_255("std", std))

    @property
    def channels(self) -> int:
        """Number of channels that mean and std are given for; 1 fits images with any number of channels."""
        return len(self.std)

    def bounds(self, dtype: torch.dtype) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Return the smallest and largest ``dtype`` values per channel that lie inside the pixel range.

        The exact bounds ``(lower - mean) / std`` and ``(upper - mean) / std`` are rational numbers; they are
        rounded inwards to ``dtype``, so that a value within them is exactly inside the range.

        Raises:
            TypeError: if the dtype is not floating, or cannot represent the inputs of this space.
        """
        bounds: dict[torch.dtype, _Bounds | None] = self._bounds  # type: ignore[attr-defined]
        if dtype not in bounds:
            raise TypeError(f"images must be float32, float64, bfloat16 or float16, got {dtype}")
        found = bounds[dtype]
        if found is None:
            raise TypeError(
                f"{dtype} cannot represent the inputs of {self}: its largest number is {torch.finfo(dtype).max:g} and "
                f"its smallest positive one {torch.finfo(dtype).smallest_normal:g}; use a wider dtype"
            )
        return found

    def from_pixels(self, pixels: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """Convert pixel values, such as decoded uint8 images, to the model's input.

        Each value is computed in float64 and rounded once. For uint8 on a CPU or CUDA device,
        :func:`fastadv.ops.from_pixels` computes the 256 values of a channel once and looks them up; it can also mirror
        images in the same pass.

        Args:
            pixels: [N, C, H, W], any dtype, values in [lower, upper].
            dtype: floating dtype of the result.
        """
        _check_tensor("pixels", pixels)
        has_operator = pixels.device.type in ("cpu", "cuda") and (self.uniform or self.channels <= MOST_CHANNELS)
        # torch.compile fuses the formula with its surroundings, and an exported graph then needs none of our operators.
        if pixels.dtype == torch.uint8 and has_operator and not torch.compiler.is_compiling():
            from fastadv import ops  # imports this module

            return ops.from_pixels(pixels, dtype=dtype, space=self)
        mean, std = self._constants(pixels, torch.float64)
        lower, upper = (_channel_view(bound, pixels).to(dtype) for bound in self.bounds(dtype))
        return ((pixels.to(torch.float64) - mean) / std).to(dtype).clamp_(lower, upper)

    def to_pixels(self, images: Tensor) -> Tensor:
        """Convert model inputs [N, C, H, W] to pixel values (float, not rounded)."""
        _check_tensor("images", images)
        mean, std = self._constants(images, torch.float64)
        return (images.to(torch.float64) * std + mean).to(torch.promote_types(images.dtype, torch.float32))

    def to_uint8(self, images: Tensor) -> Tensor:
        """Convert model inputs to uint8 pixels, rounded to nearest: truncation would cost up to one grey level.

        Raises:
            ValueError: if the space's pixel values exceed 0..255.
        """
        if self.lower < 0 or self.upper > 255:
            raise ValueError(
                f"uint8 holds 0..255, and the pixels of {self} are in [{self.lower:g}, {self.upper:g}]: round "
                f"to_pixels(images) and convert it to another dtype"
            )
        return self.to_pixels(images).round_().clamp_(0, 255).to(torch.uint8)

    def check(self, images: Tensor) -> None:
        """Raise if images [N, C, H, W] do not lie in this space, as after a wrong normalisation.

        Allows for rounding, in their arithmetic and dtype. Warns if all images lie in [0, 1] and the space is wider:
        they were probably not normalised yet.

        Raises:
            ValueError: if a value is not finite or outside the space, or the space does not describe the channels.
            TypeError: if the images are not a floating tensor.
        """
        self.check_form(images)
        if images.numel() == 0:
            return
        ends = channel_extremes(images.detach(), self).cpu()  # [2, C or 1]
        check_extremes(ends, images.dtype, self)
        warn_of_unit_scale(ends, images.dtype, self)

    def check_form(self, images: Tensor) -> None:
        """Raise if a tensor cannot be images [N, C, ...] in this space, whatever its values.

        Raises:
            ValueError: if the space does not describe its channels.
            TypeError: if it is not a floating tensor, or its dtype cannot represent the space's inputs.
        """
        _check_tensor("images", images)
        if images.dtype == torch.uint8:
            raise TypeError("images must be model inputs, got torch.uint8: convert pixels with PixelSpace.from_pixels")
        self.bounds(images.dtype)
        _check_channels(self.channels, images)

    def __repr__(self) -> str:
        named = {_RAW: "raw", _UNIT: "unit", _SYMMETRIC: "symmetric", _IMAGENET: "imagenet"}
        if self in named:
            return f"PixelSpace.{named[self]}()"
        mean, std = (values[0] if len(set(values)) == 1 else values for values in (self.mean, self.std))
        usual = (self.lower, self.upper) == (0, 255)
        bounds = "" if usual else f", lower={_exact(self.lower)}, upper={_exact(self.upper)}"
        return f"PixelSpace(mean={mean}, std={std}{bounds})"

    def _constants(self, like: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        return tuple(_channel_view(values, like).to(dtype) for values in (self.mean, self.std))  # type: ignore[return-value]


def check_space(space: object) -> None:
    """Raise unless ``space`` is a PixelSpace; a name is not.

    Raises:
        TypeError: if it is something else.
    """
    if not isinstance(space, PixelSpace):
        raise TypeError(f"space must be a PixelSpace, e.g. PixelSpace.unit(), got {type(space).__name__}")


def _check_tensor(name: str, values: object) -> None:
    if not isinstance(values, Tensor):
        hint = ": convert it with torch.from_numpy" if type(values).__name__ == "ndarray" else ""
        raise TypeError(f"{name} must be a tensor [N, C, H, W], got {type(values).__name__}{hint}")


def _per_channel(name: str, values: float | Sequence[float]) -> tuple[float, ...]:
    if isinstance(values, (Tensor, np.ndarray)):
        values = values.flatten().tolist()
    listed = values if isinstance(values, Sequence) else [values]
    if not all(isinstance(value, Real) for value in listed):  # float() would accept the text "0.5"
        raise TypeError(f"{name} must be a number, or a number per channel, got {values!r}")
    if not listed:
        raise ValueError("mean and std need at least one channel")
    return tuple(float(value) for value in listed)


def _times_255(name: str, values: float | Sequence[float]) -> list[float]:
    """Multiply by 255 in decimal, so that 0.224 gives 57.12, and ImageNet's constants ``PixelSpace.imagenet()``."""
    return [float(Fraction(str(v)) * 255) if math.isfinite(v) else v for v in _per_channel(name, values)]


def _channel_view(values: Sequence[float], like: Tensor) -> Tensor:
    """Return values per channel, shaped to broadcast over ``like`` [N, C, ...]."""
    constants = torch.tensor(values, dtype=torch.float64, device=like.device)  # [C] or [1]
    if len(values) == 1:
        return constants
    _check_channels(len(values), like)
    return constants.view(-1, *[1] * (like.dim() - 2))


def _check_channels(channels: int, like: Tensor) -> None:
    if channels > 1 and (like.dim() < 2 or like.shape[1] != channels):
        raise ValueError(
            f"a PixelSpace of {counted(channels, 'channel')} needs images [N, {channels}, ...], got {list(like.shape)}"
            f"{batch_dim_hint(like)}"
        )


def _exact(value: float) -> str:
    """Format a number without rounding, as ``:g`` would: records identify spaces by this text."""
    return str(int(value)) if value.is_integer() else repr(value)


def _bounds(space: PixelSpace, dtype: torch.dtype) -> _Bounds | None:
    """Compute :meth:`PixelSpace.bounds`; None if the dtype's range or its resolution near 0 does not suffice."""

    def exact(pixel: float, channel: int) -> Fraction:
        return (Fraction(pixel) - Fraction(space.mean[channel])) / Fraction(space.std[channel])

    channels = range(space.channels)
    lower = tuple(_round_up(exact(space.lower, c), dtype) for c in channels)
    upper = tuple(-_round_up(-exact(space.upper, c), dtype) for c in channels)
    fits = all(-math.inf < low < high < math.inf for low, high in zip(lower, upper, strict=True))
    return (lower, upper) if fits else None


def _round_up(exact: Fraction, dtype: torch.dtype) -> float:
    """Return the smallest value of ``dtype`` that is not below ``exact``, or an infinity if that is nearer."""
    try:
        wide = float(exact)
    except OverflowError:
        wide = math.inf if exact > 0 else -math.inf
    nearest = torch.tensor(wide, dtype=torch.float64, device="cpu").to(dtype)
    if nearest.isfinite() and Fraction(nearest.item()) < exact:
        nearest = torch.nextafter(nearest, torch.full_like(nearest, float("inf")))
    return nearest.item()


_RAW = PixelSpace(0.0, 1.0)
_UNIT = PixelSpace(0.0, 255.0)
_SYMMETRIC = PixelSpace(127.5, 127.5)
_IMAGENET = PixelSpace(IMAGENET_MEAN, IMAGENET_STD)
