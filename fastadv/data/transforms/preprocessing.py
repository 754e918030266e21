"""Preprocessing: how an image of any size becomes a network's input, in training and evaluation.

Random numbers are drawn here, from (seed, epoch, data-set index) alone, and crops are computed here, for every loader:
loaders differ in how they decode and resize, but not in what the network sees.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from fastadv.utils.validation import check_switches, is_number

InterpolationName = Literal["bilinear", "bicubic"]

TRIES = 10
_NUMBERS = 4 * TRIES + 5  # uniform numbers per example: four per try, one for mirroring, four for colours

# Colour distortion as for Inception networks: maximum change of each.
_BRIGHTNESS, _CONTRAST, _SATURATION, _HUE = 32.0, 0.5, 0.5, 0.2 * 2 * math.pi
_GREY = 128.0
_YIQ = np.array([[0.299, 0.587, 0.114], [0.595716, -0.274453, -0.321263], [0.211456, -0.522591, 0.311135]])


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """Preprocessing of images before normalisation.

    Training: a crop of random area and aspect ratio at a random place, as in torchvision's RandomResizedCrop (ten
    tries, then the largest centred crop of an allowed aspect ratio), resized to size x size with antialiasing;
    optionally mirrored with probability 1/2, and with random brightness, saturation, hue and contrast. Evaluation, as
    for Inception networks: the central part of both sides, resized in the same way, ignoring the aspect ratio; with
    ``keep_aspect`` a central square, as is usual for most other networks.

    Args:
        size: height and width of the result in pixels.
        least_area: smallest share of an image's area that a training crop covers; shares up to 1 are equally likely.
        widest_aspect: largest aspect ratio of a training crop; the smallest is its inverse, and the logarithm is
            uniform in between.
        flip: mirror half of the training images; not for data whose class it changes.
        colour: distort the colours of training images.
        central: share of each side that evaluation keeps; with ``keep_aspect``, of the shorter side.
        keep_aspect: evaluate on a square crop.
        interpolation: bilinear or bicubic.

    Raises:
        ValueError: if a value is out of range.
    """

    size: int = 299
    least_area: float = 0.05
    widest_aspect: float = 4 / 3
    flip: bool = False
    colour: bool = False
    central: float = 0.875
    keep_aspect: bool = False
    interpolation: InterpolationName = "bilinear"

    def __post_init__(self) -> None:
        if not isinstance(self.size, int) or isinstance(self.size, bool) or self.size < 1:
            raise ValueError(f"size must be an integer of at least 1, got {self.size!r}")
        for name in ("least_area", "central"):
            share = getattr(self, name)
            if not is_number(share) or not 0 < share <= 1:
                raise ValueError(f"{name} must be a number above 0 and at most 1, got {share!r}")
        if not is_number(self.widest_aspect) or self.widest_aspect < 1:
            raise ValueError(f"widest_aspect must be a number of at least 1, got {self.widest_aspect!r}")
        check_switches(flip=self.flip, colour=self.colour, keep_aspect=self.keep_aspect)
        if self.interpolation not in get_args(InterpolationName):
            accepted = ", ".join(get_args(InterpolationName))
            raise ValueError(f"interpolation must be one of {accepted}, got {self.interpolation!r}")

    @property
    def shown(self) -> str:
        """Describes the preprocessing for evaluation."""
        window = "of the shorter side" if self.keep_aspect else "of both sides"
        return f"{self.size} px, {self.interpolation}, the central {self.central:.4g} {window}"

    def draw(self, seed: int, epoch: int, indices: Sequence[int]) -> Draws:
        """Draw the random numbers of m examples in one epoch.

        Args:
            seed: seed of the run.
            epoch: counts from 0.
            indices: data-set indices of the m examples.
        """
        uniform = np.stack([_uniform(seed, epoch, index) for index in indices])  # [m, _NUMBERS]
        tries = uniform[:, : 4 * TRIES].reshape(-1, 4, TRIES)  # [m, 4, TRIES]
        area = self.least_area + (1 - self.least_area) * tries[:, 0]  # [m, TRIES]
        aspect = self.widest_aspect ** (2 * tries[:, 1] - 1)  # [m, TRIES]
        windows = np.stack([np.sqrt(area / aspect), np.sqrt(area * aspect), tries[:, 2], tries[:, 3]], axis=1)
        mirrored = (uniform[:, -5] < 0.5) & self.flip  # [m]
        return Draws(windows, mirrored, _colours(2 * uniform[:, -4:] - 1) if self.colour else None)


@dataclass(frozen=True, eq=False)
class Draws:
    """Random numbers of m examples.

    Args:
        windows: [m, 4, TRIES] float64: height and width of the crop in units of sqrt(area of the image), and its
            distance from the top and the left as a share of the available room.
        mirrored: [m] bool.
        colours: [m, 3, 4] float32, a matrix to multiply by (red, green, blue, 1) in pixel values; None for unchanged
            colours.
    """

    windows: NDArray[np.float64]
    mirrored: NDArray[np.bool_]
    colours: NDArray[np.float32] | None


def _uniform(seed: int, epoch: int, index: int) -> NDArray[np.float64]:  # [_NUMBERS]
    """Uniform numbers in [0, 1) for one example in one epoch: Philox starts at a counter given by the index."""
    key, counter = np.array([seed, epoch], np.uint64), np.array([0, index, 0, 0], np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter)).random(_NUMBERS)


def _colours(uniform: NDArray[np.float64]) -> NDArray[np.float32]:  # [m, 4] in [-1, 1) -> [m, 3, 4]
    """Saturation and hue in YIQ, then contrast around mid-grey, and brightness: an affine map of a pixel."""
    brightness, contrast = _BRIGHTNESS * uniform[:, 0], 1 + _CONTRAST * uniform[:, 1]  # [m], [m]
    saturation, hue = 1 + _SATURATION * uniform[:, 2], _HUE * uniform[:, 3]  # [m], [m]
    turn = np.zeros((len(uniform), 3, 3))  # [m, 3, 3]
    turn[:, 0, 0] = 1
    turn[:, 1, 1] = turn[:, 2, 2] = saturation * np.cos(hue)
    turn[:, 2, 1] = saturation * np.sin(hue)
    turn[:, 1, 2] = -turn[:, 2, 1]
    linear = contrast[:, None, None] * (np.linalg.inv(_YIQ) @ turn @ _YIQ)  # [m, 3, 3]
    offset = np.broadcast_to(((1 - contrast) * _GREY + brightness)[:, None, None], (len(uniform), 3, 1))  # [m, 3, 1]
    return np.concatenate([linear, offset], axis=2).astype(np.float32)


# --- windows ---------------------------------------------------------------------------------------------------------


class Arithmetic(Protocol):
    """Functions to compute crops with: NumPy's, or the same of DALI on nodes of its graph.

    Both compute in float64 with IEEE 754 rounding, and so find the same crops to the pixel.
    """

    def number(self, value: float) -> Any: ...
    def sqrt(self, value: Any) -> Any: ...
    def floor(self, value: Any) -> Any: ...
    def smaller(self, left: Any, right: Any) -> Any: ...
    def larger(self, left: Any, right: Any) -> Any: ...
    def first(self, fits: Any, values: Sequence[Any], otherwise: Sequence[Any]) -> list[Any]:
        """Take the element of each vector in ``values`` where ``fits`` is first true; ``otherwise`` if it never is."""
        ...


def random_window(height: Any, width: Any, draws: Sequence[Any], widest_aspect: float, xp: Arithmetic) -> list[Any]:
    """Top, left, height and width of a training crop, in whole pixels.

    Args:
        height: height of the image.
        width: width of the image.
        draws: its four rows [TRIES] of ``Draws.windows``.
        widest_aspect: see :class:`Preprocessing`.
        xp: functions to compute with.
    """
    half, one, widest = xp.number(0.5), xp.number(1.0), xp.number(widest_aspect)
    side = xp.sqrt(height * width)
    heights, widths = (xp.floor(side * draw + half) for draw in draws[:2])  # [TRIES], [TRIES]
    fits = (heights >= one) & (heights <= height) & (widths >= one) & (widths <= width)  # [TRIES]
    centred = [
        xp.smaller(height, xp.larger(one, xp.floor(width * widest + half))),
        xp.smaller(width, xp.larger(one, xp.floor(height * widest + half))),
        half,
        half,
    ]
    tall, wide, down, right = xp.first(fits, [heights, widths, *draws[2:]], centred)
    return [xp.floor(down * (height - tall + one)), xp.floor(right * (width - wide + one)), tall, wide]


def central_window(height: Any, width: Any, central: float, xp: Arithmetic, *, keep_aspect: bool = False) -> list[Any]:
    """Top, left, height and width of the crop for evaluation: the central share of each side.

    With ``keep_aspect`` it is a square, of that share of the shorter side.
    """
    half, two, cut = xp.number(0.5), xp.number(2.0), xp.number(1 - central)
    if keep_aspect:
        shorter = xp.smaller(height, width)
        side = shorter - two * xp.floor(shorter * cut * half)
        return [xp.floor((height - side) * half), xp.floor((width - side) * half), side, side]
    top, left = (xp.floor(side * cut * half) for side in (height, width))
    return [top, left, height - two * top, width - two * left]


class NumPyArithmetic:
    """Arithmetic with NumPy."""

    def number(self, value: float) -> Any:
        return np.float64(value)

    def sqrt(self, value: Any) -> Any:
        return np.sqrt(value)

    def floor(self, value: Any) -> Any:
        return np.floor(value)

    def smaller(self, left: Any, right: Any) -> Any:
        return np.minimum(left, right)

    def larger(self, left: Any, right: Any) -> Any:
        return np.maximum(left, right)

    def first(self, fits: Any, values: Sequence[Any], otherwise: Sequence[Any]) -> list[Any]:
        return [value[fits.argmax()] for value in values] if fits.any() else list(otherwise)
